import type pg from 'pg';
import type { ClickHouseClient } from '../../../src/stores/clickhouse.ts';
import type { Bytes } from './check.ts';
import { type CellKey, type Cells, type IngestKind, ingestKinds } from './ledger.ts';

/** What the stores have of the run's nodes once everything is settled. */
export interface Found {
  kinds: Record<IngestKind, Map<number, Cells>>;
  /** Counters by subscription. */
  subscriptions: Map<CellKey, Bytes>;
  nodes: Map<number, { appliedRevision: number | null; syncStatus: string; isSeen: boolean }>;
}

const usageSql = `
SELECT node_id, toString(subscription_id), toString(count()),
  toString(sum(bytes_up)), toString(sum(bytes_down)),
  toString(sum(toUnixTimestamp(recorded_at) + user_id + node_protocol_id))
FROM usage WHERE node_id BETWEEN {first:UInt32} AND {last:UInt32}
GROUP BY node_id, subscription_id`;

const sessionSql = `
SELECT node_id, concat(toString(protocol), '/', toString(event_type)), toString(count()),
  '0', '0', toString(sum(toUnixTimestamp64Milli(occurred_at) + user_id))
FROM session_events WHERE node_id BETWEEN {first:UInt32} AND {last:UInt32}
GROUP BY node_id, protocol, event_type`;

const outboundSql = `
SELECT node_id, tag, traffic_bytes_up::text AS bytes_up, traffic_bytes_down::text AS bytes_down
FROM node_outbounds WHERE node_id BETWEEN $1 AND $2`;

const subscriptionsSql = `
SELECT id, traffic_bytes_up::text AS bytes_up, traffic_bytes_down::text AS bytes_down
FROM subscriptions WHERE id BETWEEN $1 AND $2`;

const nodesSql = `
SELECT id, applied_revision, sync_status, last_seen_at IS NOT NULL AS is_seen
FROM nodes WHERE id BETWEEN $1 AND $2`;

/** A run's ids are in a row, except for what others create meanwhile. */
export interface IdRange {
  first: number;
  last: number;
}

export function idRange(ids: readonly number[]): IdRange {
  const range = { first: Number.MAX_SAFE_INTEGER, last: 0 };
  for (const id of ids) {
    range.first = Math.min(range.first, id);
    range.last = Math.max(range.last, id);
  }
  return range;
}

/** Reads sums by node and cell from both stores, without the nodes and subscriptions of others. */
export async function readFound(
  stores: { pool: pg.Pool; clickhouse: ClickHouseClient },
  ids: { nodes: readonly number[]; subscriptions: readonly number[] },
): Promise<Found> {
  const nodes = idRange(ids.nodes);
  const isOurs = new Set(ids.nodes);
  const found: Found = {
    kinds: { usage: new Map(), outbound: new Map(), session: new Map() },
    subscriptions: await readSubscriptions(stores.pool, ids.subscriptions),
    nodes: await readNodes(stores.pool, nodes),
  };
  for (const kind of ingestKinds) for (const id of ids.nodes) found.kinds[kind].set(id, new Map());
  await readCells(stores.clickhouse, usageSql, nodes, (nodeId, key, cells) => {
    if (isOurs.has(nodeId)) found.kinds.usage.get(nodeId)?.set(Number(key), cells);
  });
  await readCells(stores.clickhouse, sessionSql, nodes, (nodeId, key, cells) => {
    if (isOurs.has(nodeId)) found.kinds.session.get(nodeId)?.set(key, cells);
  });
  await readOutbounds(stores.pool, nodes, found.kinds.outbound);
  return found;
}

type CellRow = [number, string, string, string, string, string];

async function readCells(
  clickhouse: ClickHouseClient,
  query: string,
  nodes: IdRange,
  take: (
    nodeId: number,
    key: string,
    sums: Cells extends Map<CellKey, infer S> ? S : never,
  ) => void,
): Promise<void> {
  const result = await clickhouse.query({
    query,
    query_params: { first: nodes.first, last: nodes.last },
    format: 'JSONCompactEachRow',
  });
  for await (const rows of result.stream<CellRow>()) {
    for (const row of rows) {
      const [nodeId, key, count, bytesUp, bytesDown, checksum] = row.json() as CellRow;
      take(nodeId, key, {
        rows: BigInt(count),
        bytesUp: BigInt(bytesUp),
        bytesDown: BigInt(bytesDown),
        checksum: BigInt(checksum),
      });
    }
  }
}

async function readOutbounds(
  pool: pg.Pool,
  range: IdRange,
  nodes: Map<number, Cells>,
): Promise<void> {
  const result = await pool.query<{
    node_id: number;
    tag: string;
    bytes_up: string;
    bytes_down: string;
  }>(outboundSql, [range.first, range.last]);
  for (const row of result.rows) {
    const bytes = { bytesUp: BigInt(row.bytes_up), bytesDown: BigInt(row.bytes_down) };
    nodes.get(row.node_id)?.set(row.tag, { rows: 0n, checksum: 0n, ...bytes });
  }
}

const subscriptionsPage = 50_000;

async function readSubscriptions(
  pool: pg.Pool,
  ids: readonly number[],
): Promise<Map<CellKey, Bytes>> {
  const counters = new Map<CellKey, Bytes>();
  const isOurs = new Set(ids);
  const range = idRange(ids);
  for (let first = range.first; first <= range.last; first += subscriptionsPage) {
    const result = await pool.query<{ id: number; bytes_up: string; bytes_down: string }>(
      subscriptionsSql,
      [first, Math.min(range.last, first + subscriptionsPage - 1)],
    );
    for (const row of result.rows) {
      if (!isOurs.has(row.id)) continue;
      const bytes = { bytesUp: BigInt(row.bytes_up), bytesDown: BigInt(row.bytes_down) };
      counters.set(row.id, bytes);
    }
  }
  return counters;
}

async function readNodes(pool: pg.Pool, range: IdRange): Promise<Found['nodes']> {
  const result = await pool.query<{
    id: number;
    applied_revision: number | null;
    sync_status: string;
    is_seen: boolean;
  }>(nodesSql, [range.first, range.last]);
  return new Map(
    result.rows.map((row) => [
      row.id,
      {
        appliedRevision: row.applied_revision,
        syncStatus: row.sync_status,
        isSeen: row.is_seen,
      },
    ]),
  );
}
