-- What was deleted of `segments` after an audit without a difference; see audit/prune.ts. One row an
-- audit that deleted something. Segments up to the largest up_to_id that are still in `segments` were
-- kept, all others up to it are in these sums.
CREATE TABLE segment_prunings (
  -- Every segment up to up_to_id that an earlier row does not reach was settled before this.
  settled_before timestamptz PRIMARY KEY,
  up_to_id bigint NOT NULL,
  segments bigint NOT NULL,
  usage_rows bigint NOT NULL,
  session_rows bigint NOT NULL
);
CREATE INDEX segment_prunings_up_to_id ON segment_prunings (up_to_id);
