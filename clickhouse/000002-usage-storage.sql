-- Codecs by what a column holds once it is sorted by subscription and time; bench/README.md has the
-- table. Nothing is copied: parts that are there keep their codecs until they are next merged.
ALTER TABLE usage
  MODIFY COLUMN node_id UInt32 CODEC(T64, ZSTD(1)),
  MODIFY COLUMN node_protocol_id UInt64 CODEC(T64, ZSTD(1)),
  MODIFY COLUMN user_id UInt64 CODEC(Delta, ZSTD(1)),
  MODIFY COLUMN subscription_id UInt64 CODEC(Delta, ZSTD(1)),
  MODIFY COLUMN bytes_up UInt64 CODEC(T64, ZSTD(1)),
  MODIFY COLUMN bytes_down UInt64 CODEC(T64, ZSTD(1)),
  MODIFY COLUMN recorded_at DateTime('UTC') CODEC(Delta, ZSTD(1)),
  MODIFY COLUMN segment UInt64 CODEC(Delta, ZSTD(1));

-- The rollup is made by a part's first merge, not by the insert, which it would slow down threefold.
-- Queries read the rows of parts that have none yet, so sums are right at any time.
ALTER TABLE usage MODIFY SETTING
  default_compression_codec = 'ZSTD(1)',
  materialize_projections_on_insert = 0,
  materialize_projections_on_merge = 1,
  deduplicate_merge_projection_mode = 'rebuild',
  lightweight_mutation_projection_mode = 'rebuild',
  min_rows_to_fsync_after_merge = 1;

ALTER TABLE usage ADD PROJECTION IF NOT EXISTS hourly (
  SELECT toStartOfHour(recorded_at) AS hour, subscription_id, user_id, node_id, node_protocol_id,
    sum(bytes_up), sum(bytes_down), count()
  GROUP BY hour, subscription_id, user_id, node_id, node_protocol_id
);

-- For the rows that are there; in the background, and going on after a restart.
ALTER TABLE usage MATERIALIZE PROJECTION hourly SETTINGS mutations_sync = 0;
