-- Rows that ClickHouse refuses for what they hold; see load/reject.ts. A segment's rows without
-- these are what ClickHouse has and what the counters count.
CREATE TABLE rejected_rows (
  segment_id bigint NOT NULL REFERENCES segments (id),
  -- toYYYYMM of the row's time, and its place among the segment's rows of that month, from 0.
  month integer NOT NULL,
  position integer NOT NULL,
  kind text NOT NULL CHECK (kind IN ('usage', 'session')),
  -- The row as it was to be inserted, RowBinary, and the same decoded.
  row_bytes bytea NOT NULL,
  row_json json NOT NULL,
  -- What ClickHouse said.
  reason text NOT NULL,
  rejected_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (segment_id, month, position)
);

-- How many of a segment's rows are in rejected_rows; both change in one transaction.
ALTER TABLE segments ADD COLUMN rejected bigint NOT NULL DEFAULT 0;

-- One row a run of the audit; see audit/run-audit.ts.
CREATE TABLE audits (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  ran_at timestamptz NOT NULL DEFAULT now(),
  -- Segments compared, and differences found.
  segments bigint NOT NULL,
  differences bigint NOT NULL,
  details json NOT NULL
);
CREATE INDEX audits_ran_at ON audits (ran_at);
