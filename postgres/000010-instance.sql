-- Which Core this database belongs to. The data directory and Redis keep the same id, so that a command or
-- a process with the wrong one of them is refused instead of mixing two Cores up.
CREATE TABLE instance (
  is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  id uuid NOT NULL DEFAULT gen_random_uuid()
);

INSERT INTO instance DEFAULT VALUES;

-- The api and worker processes, each of which says every few seconds that it runs. A row stays after its
-- process has ended, so that core status can say since when nothing runs.
CREATE TABLE processes (
  id uuid PRIMARY KEY,
  role text NOT NULL CHECK (role IN ('api', 'worker')),
  host text NOT NULL,
  pid integer NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  seen_at timestamptz NOT NULL DEFAULT now(),
  -- Set by a clean stop.
  stopped_at timestamptz,
  -- The stores that did not answer it when it was last seen, each with the time since when.
  stores_away jsonb NOT NULL
);
