-- A node's revision follows the bytes of what it should run, no longer the changes: a change marks
-- the node, and publishing it (render/publish.ts) gives it a new revision where its bytes differ.
ALTER TABLE nodes
  DROP COLUMN revision_bumped_at,
  DROP COLUMN revision_pending,
  -- Grows with every change of what the node should run; see nodes/bump.ts. No index: a change of an
  -- indexed column would make every update of a node a new entry in all of its indexes, and the
  -- sweep over a fleet of 10,000 rows takes milliseconds.
  ADD COLUMN change_seq bigint NOT NULL DEFAULT 0,
  -- When the first change came that is not published, and what causes there were since.
  ADD COLUMN changed_at timestamptz,
  ADD COLUMN change_causes text[] NOT NULL DEFAULT '{}',
  -- The change_seq of the rows that the current revision was rendered from.
  ADD COLUMN published_seq bigint NOT NULL DEFAULT 0,
  ADD COLUMN published_at timestamptz,
  -- SHA-256 of the current revision without its number; null where none was ever rendered.
  ADD COLUMN content_hash bytea,
  -- Its size as JSON, by which nodes are put together into batches.
  ADD COLUMN content_bytes integer,
  -- Why the marked changes could not be rendered; tried again at the next change, or after a while.
  ADD COLUMN publish_error text,
  ADD COLUMN publish_failed_seq bigint,
  ADD COLUMN publish_failed_at timestamptz,
  -- Set by a rollback until the next change of settings: what is rendered in place of the rows.
  ADD COLUMN pinned_revision integer,
  ADD COLUMN pinned_settings_hash bytea,
  -- What the newest heartbeat said that the node runs; null where it said nothing.
  ADD COLUMN reported_revision bigint,
  ADD COLUMN maintenance_at timestamptz,
  ADD COLUMN maintenance_reason text;

-- Nobody knows the hash of what these nodes were last given: each is published anew, once.
UPDATE nodes SET revision = revision + 1, change_seq = 1, changed_at = now(),
  change_causes = '{upgrade of Core}';

-- Protocols, outbounds and rules as they were rendered, by SHA-256. Most revisions differ in their
-- links only and share a row.
CREATE TABLE node_settings (
  node_id integer NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
  settings_hash bytea NOT NULL,
  settings jsonb NOT NULL,
  PRIMARY KEY (node_id, settings_hash)
);

CREATE TABLE node_revisions (
  node_id integer NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
  revision integer NOT NULL,
  content_hash bytea NOT NULL,
  content_bytes integer NOT NULL,
  settings_hash bytea NOT NULL,
  causes text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (node_id, revision)
);

-- What nodes said of their revisions: the newest of each kind a node; see nodes/reports.ts.
CREATE TABLE node_reports (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  node_id integer NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
  kind text NOT NULL CHECK (kind IN ('applied', 'error')),
  revision integer NOT NULL,
  message text,
  code text,
  details json,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX node_reports_node ON node_reports (node_id, kind, id);
