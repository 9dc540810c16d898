CREATE TABLE migrations (
  `version` UInt32,
  `name` String,
  `hash` String,
  `applied_at` DateTime('UTC') DEFAULT now()
) ENGINE = MergeTree
ORDER BY version
SETTINGS index_granularity = 8192;

CREATE TABLE session_events (
  `segment` UInt64 CODEC(ZSTD(1)),
  `node_id` UInt32 CODEC(ZSTD(1)),
  `user_id` UInt64 CODEC(ZSTD(1)),
  `protocol` Enum8('VLESS' = 1, 'VMESS' = 2, 'TROJAN' = 3, 'SHADOWSOCKS' = 4, 'HYSTERIA2' = 5, 'MTPROTO' = 6),
  `event_type` Enum8('ONLINE' = 1, 'OFFLINE' = 2),
  `occurred_at` DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
  `ip_address` String CODEC(ZSTD(1)),
  INDEX segment_range segment TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (user_id, occurred_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 8192;

CREATE TABLE usage (
  `node_id` UInt32 CODEC(T64, ZSTD(1)),
  `node_protocol_id` UInt64 CODEC(T64, ZSTD(1)),
  `user_id` UInt64 CODEC(Delta(8), ZSTD(1)),
  `subscription_id` UInt64 CODEC(Delta(8), ZSTD(1)),
  `bytes_up` UInt64 CODEC(T64, LZ4),
  `bytes_down` UInt64 CODEC(T64, LZ4),
  `recorded_at` DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
  `segment` UInt64 CODEC(Delta(8), ZSTD(1)),
  INDEX segment_range segment TYPE minmax GRANULARITY 1, PROJECTION hourly_subscriptions (SELECT toStartOfHour(recorded_at) AS hour, subscription_id, user_id, sum(bytes_up), sum(bytes_down), count() GROUP BY hour, subscription_id, user_id), PROJECTION hourly_nodes (SELECT toStartOfHour(recorded_at) AS hour, node_id, node_protocol_id, sum(bytes_up), sum(bytes_down), count() GROUP BY hour, node_id, node_protocol_id)
) ENGINE = MergeTree
PARTITION BY toYYYYMM(recorded_at)
ORDER BY (subscription_id, recorded_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, index_granularity = 8192, default_compression_codec = 'ZSTD(1)', materialize_projections_on_insert = 0, materialize_projections_on_merge = 1, deduplicate_merge_projection_mode = 'rebuild', lightweight_mutation_projection_mode = 'rebuild', min_rows_to_fsync_after_merge = 1, merge_selector_base = 16, vertical_merge_algorithm_min_columns_to_activate = 1, auto_statistics_types = '', ratio_of_defaults_for_sparse_serialization = 1;
