/** One layout of the table `usage`. */
export interface Variant {
  name: string;
  orderBy: string;
  /** By column. A column without one has ZSTD(1). */
  codecs: Record<string, string>;
  /** The query of each projection, by its name. */
  projections?: Record<string, string>;
  settings?: string;
}

const columns = {
  node_id: 'UInt32',
  node_protocol_id: 'UInt64',
  user_id: 'UInt64',
  subscription_id: 'UInt64',
  bytes_up: 'UInt64',
  bytes_down: 'UInt64',
  recorded_at: "DateTime('UTC')",
  segment: 'UInt64',
} as const;

export function createTable(name: string, variant: Variant): string {
  const lines = Object.entries(columns).map(
    ([column, type]) => `${column} ${type} CODEC(${variant.codecs[column] ?? 'ZSTD(1)'})`,
  );
  lines.push('INDEX segment_range segment TYPE minmax GRANULARITY 1');
  for (const [rollup, query] of Object.entries(variant.projections ?? {})) {
    lines.push(`PROJECTION ${rollup} (${query})`);
  }
  return `CREATE TABLE ${name} (${lines.join(', ')}) ENGINE = MergeTree
    PARTITION BY toYYYYMM(recorded_at) ORDER BY (${variant.orderBy})
    SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1,
      fsync_part_directory = 1${variant.settings === undefined ? '' : `, ${variant.settings}`}`;
}

const delta = 'Delta, ZSTD(1)';
const t64 = 'T64, ZSTD(1)';
const bySubscription = 'subscription_id, recorded_at';
const first = { recorded_at: 'DoubleDelta, ZSTD(1)' };
const common = { bytes_up: t64, bytes_down: t64, recorded_at: delta, segment: delta };
const ids = { node_id: delta, node_protocol_id: delta, user_id: delta, subscription_id: delta };
const idsT64 = { ...common, ...ids, node_id: t64, node_protocol_id: t64 };
const chosen = { ...idsT64, bytes_up: 'T64, LZ4', bytes_down: 'T64, LZ4' };
const hourly = `SELECT toStartOfHour(recorded_at) AS hour, subscription_id, user_id, node_id,
  node_protocol_id, sum(bytes_up), sum(bytes_down), count()
  GROUP BY hour, subscription_id, user_id, node_id, node_protocol_id`;
const sums = 'sum(bytes_up), sum(bytes_down), count()';
const rollups = {
  hourly_subscriptions: `SELECT toStartOfHour(recorded_at) AS hour, subscription_id, user_id, ${sums}
    GROUP BY hour, subscription_id, user_id`,
  hourly_nodes: `SELECT toStartOfHour(recorded_at) AS hour, node_id, node_protocol_id, ${sums}
    GROUP BY hour, node_id, node_protocol_id`,
};
const zstd = "default_compression_codec = 'ZSTD(1)'";
const onMerge = `${zstd}, materialize_projections_on_insert = 0, materialize_projections_on_merge = 1`;

/** The first is the layout of the first migration, `chosen` that of today. RESULTS.md compares them. */
export const variants: readonly Variant[] = [
  { name: 'migration 000001', orderBy: bySubscription, codecs: first },
  { name: 'counts T64, time and segment Delta', orderBy: bySubscription, codecs: common },
  { name: '… and ids Delta', orderBy: bySubscription, codecs: { ...common, ...ids } },
  { name: '… but node and protocol T64', orderBy: bySubscription, codecs: idsT64 },
  { name: '… and counts LZ4 (chosen)', orderBy: bySubscription, codecs: chosen },
  {
    name: 'ids Delta, by subscription, protocol, time',
    orderBy: 'subscription_id, node_protocol_id, recorded_at',
    codecs: { ...common, ...ids },
  },
  {
    name: 'ids Delta, by node, subscription, time',
    orderBy: 'node_id, subscription_id, recorded_at',
    codecs: { ...common, ...ids },
  },
  {
    name: 'chosen, rollup at insert',
    orderBy: bySubscription,
    codecs: chosen,
    projections: { hourly },
    settings: zstd,
  },
  {
    name: 'chosen, rollup at merge',
    orderBy: bySubscription,
    codecs: chosen,
    projections: { hourly },
    settings: onMerge,
  },
  {
    name: 'chosen, two smaller rollups at merge',
    orderBy: bySubscription,
    codecs: chosen,
    projections: rollups,
    settings: onMerge,
  },
];
