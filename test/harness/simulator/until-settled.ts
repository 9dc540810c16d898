import type pg from 'pg';
import type { ClickHouseClient } from '../../../src/stores/clickhouse.ts';
import { pause } from './deliver.ts';
import { type IdRange, idRange } from './found.ts';
import { ackedTotal, type Ledger } from './ledger.ts';

export interface Settled {
  isSettled: boolean;
  waitedMs: number;
  /** What Core has not finished, in words; empty if it has finished everything. */
  missing: string;
}

const pollMs = 500;
/** An unknown request may still be on its way through Core, so nothing may change for this long. */
const quietMs = 2_000;

const unsettledSql = `SELECT count(*) AS count FROM segments WHERE state <> 'settled'`;

const outboundSql = `
SELECT coalesce(sum(traffic_bytes_up + traffic_bytes_down), 0)::text AS bytes
FROM node_outbounds WHERE node_id = ANY ($1::integer[])`;

/**
 * Polls until everything that was acked has arrived and every segment is settled, or until the
 * deadline. It counts rows first and unsettled segments after that. A segment is sealed before its
 * rows reach ClickHouse. So if all rows are there and then no segment is unsettled, the counters are
 * complete, too.
 */
export async function untilSettled(
  stores: { pool: pg.Pool; clickhouse: ClickHouseClient },
  ledger: Ledger,
  nodeIds: readonly number[],
  deadlineMs: number,
): Promise<Settled> {
  const startedMs = performance.now();
  const never = new AbortController().signal;
  let lastState = '';
  let quietSinceMs = startedMs;
  for (;;) {
    const progress = await readProgress(stores, ledger, nodeIds);
    const nowMs = performance.now();
    if (progress.state !== lastState) quietSinceMs = nowMs;
    lastState = progress.state;
    const waitedMs = nowMs - startedMs;
    const isQuiet = ledger.tally.unknownRequests === 0 || nowMs - quietSinceMs >= quietMs;
    if (progress.missing === '' && isQuiet) return { isSettled: true, waitedMs, missing: '' };
    if (waitedMs >= deadlineMs) {
      return { isSettled: progress.missing === '', waitedMs, missing: progress.missing };
    }
    await pause(pollMs, never);
  }
}

async function readProgress(
  stores: { pool: pg.Pool; clickhouse: ClickHouseClient },
  ledger: Ledger,
  nodeIds: readonly number[],
): Promise<{ state: string; missing: string }> {
  const range = idRange(nodeIds);
  const isOurs = new Set(nodeIds);
  const usage = await countRows(stores.clickhouse, 'usage', range, isOurs);
  const session = await countRows(stores.clickhouse, 'session_events', range, isOurs);
  const outbound = await stores.pool.query<{ bytes: string }>(outboundSql, [nodeIds]);
  const outboundBytes = BigInt(outbound.rows[0]?.bytes ?? 0);
  const unsettled = await stores.pool.query<{ count: number }>(unsettledSql);
  const open = unsettled.rows[0]?.count ?? 0;
  const due = ackedTotal(ledger, 'outbound');
  const missing = [
    lack('usage rows', usage, ackedTotal(ledger, 'usage').rows),
    lack('session events', session, ackedTotal(ledger, 'session').rows),
    lack('outbound bytes', outboundBytes, due.bytesUp + due.bytesDown),
    open === 0 ? '' : `${open} segments are not settled`,
  ];
  return {
    state: [usage, session, outboundBytes, open].join(),
    missing: missing.filter((line) => line !== '').join(', '),
  };
}

function lack(what: string, found: bigint, due: bigint): string {
  return found >= due ? '' : `${found} of ${due} ${what}`;
}

async function countRows(
  clickhouse: ClickHouseClient,
  name: 'usage' | 'session_events',
  range: IdRange,
  isOurs: ReadonlySet<number>,
): Promise<bigint> {
  const result = await clickhouse.query({
    query: `SELECT node_id, toString(count()) AS count FROM ${name}
      WHERE node_id BETWEEN {first:UInt32} AND {last:UInt32} GROUP BY node_id`,
    query_params: { first: range.first, last: range.last },
    format: 'JSONEachRow',
  });
  let count = 0n;
  for (const row of await result.json<{ node_id: number; count: string }>()) {
    if (isOurs.has(row.node_id)) count += BigInt(row.count);
  }
  return count;
}
