import type pg from 'pg';
import type { ClickHouseClient } from '../stores/clickhouse.ts';
import type { SegmentScope } from './compare-segments.ts';
import { addDifference, detailsMax, type Findings } from './difference.ts';

interface Deps {
  client: pg.PoolClient;
  clickhouse: ClickHouseClient;
  signal: AbortSignal;
  /** Collects the segments whose `settled_at` a comparison needed, so that they are not deleted. */
  earlyIds: Set<number>;
}

/** How many subscriptions are compared at a time. ClickHouse's table is ordered by subscription. */
const pageSubscriptions = 20_000;
/** Where a counter stops (src/subscriptions/add-traffic.ts). */
const counterMax = 9_223_372_036_854_775_807n;
/** How many segments are read for one subscription that may be younger than some of its rows. */
const earlySegmentsMax = 100_000;

interface Traffic {
  up: bigint;
  down: bigint;
}

interface Counter extends Traffic {
  id: number;
}

/**
 * Compares each subscription's counters with the sums of its rows in all settled segments. Rows of a
 * subscription that does not exist (any more) have no counter, so they are not compared. If a counter
 * has stopped at its maximum, its rows must make at least that much.
 * @returns how many subscriptions were compared.
 */
export async function compareCounters(
  deps: Deps,
  scope: SegmentScope,
  findings: Findings,
): Promise<number> {
  let compared = 0;
  let afterId = 0;
  for (;;) {
    deps.signal.throwIfAborted();
    const counters = await readCounters(deps.client, afterId);
    const last = counters.at(-1);
    if (last === undefined) return compared;
    const sums = await sumRows(deps, scope, { afterId, upToId: last.id });
    for (const counter of counters) {
      const sum = sums.get(counter.id) ?? { up: 0n, down: 0n };
      if (isEqual(counter, sum)) continue;
      await examine(deps, scope, counter, sum, findings);
    }
    compared += counters.length;
    afterId = last.id;
  }
}

async function readCounters(client: pg.PoolClient, afterId: number): Promise<Counter[]> {
  const { rows } = await client.query<{ id: number; up: string; down: string }>(
    `SELECT id, traffic_bytes_up::text AS up, traffic_bytes_down::text AS down
     FROM subscriptions WHERE id > $1 ORDER BY id LIMIT $2`,
    [afterId, pageSubscriptions],
  );
  return rows.map((row) => ({ ...row, up: BigInt(row.up), down: BigInt(row.down) }));
}

/** The sums of all rows of settled segments, by subscription. */
async function sumRows(
  deps: Deps,
  scope: SegmentScope,
  page: { afterId: number; upToId: number },
): Promise<Map<number, Traffic>> {
  const result = await deps.clickhouse.query({
    query: `SELECT subscription_id AS id, toString(sum(toUInt128(bytes_up))) AS up,
        toString(sum(toUInt128(bytes_down))) AS down
      FROM usage
      WHERE subscription_id > {after:UInt64} AND subscription_id <= {upTo:UInt64}
        AND segment <= {maxId:UInt64} AND NOT has({unsettled:Array(UInt64)}, segment)
      GROUP BY id`,
    query_params: {
      after: page.afterId,
      upTo: page.upToId,
      maxId: scope.maxId,
      unsettled: [...scope.unsettledIds],
    },
    format: 'JSONEachRow',
    clickhouse_settings: { wait_end_of_query: 1 },
    abort_signal: deps.signal,
  });
  const sums = new Map<number, Traffic>();
  for await (const chunk of result.stream<{ id: number; up: string; down: string }>()) {
    for (const line of chunk) {
      const { id, up, down } = line.json();
      sums.set(id, { up: BigInt(up), down: BigInt(down) });
    }
  }
  return sums;
}

/**
 * Rows that named a subscription before it existed count towards no counter, so the counter may be
 * smaller than the rows. If it is, those early rows are taken off and the two are compared again. That
 * costs a query for each subscription, so it stops once there are as many differences as are kept.
 */
async function examine(
  deps: Deps,
  scope: SegmentScope,
  counter: Counter,
  sum: Traffic,
  findings: Findings,
): Promise<void> {
  let rows = sum;
  const mayBeEarly = counter.up <= sum.up && counter.down <= sum.down;
  if (mayBeEarly && findings.details.length < detailsMax) {
    const early = await sumEarlyRows(deps, scope, counter);
    rows = { up: sum.up - early.up, down: sum.down - early.down };
    if (isEqual(counter, rows)) return;
  }
  addDifference(findings, {
    what: 'subscription',
    subscriptionId: counter.id,
    counterUp: String(counter.up),
    counterDown: String(counter.down),
    rowsUp: String(rows.up),
    rowsDown: String(rows.down),
  });
}

/** The sums of the subscription's rows whose segments were settled before it was created. */
async function sumEarlyRows(deps: Deps, scope: SegmentScope, counter: Counter): Promise<Traffic> {
  const result = await deps.clickhouse.query({
    query: `SELECT segment, toString(sum(toUInt128(bytes_up))) AS up,
        toString(sum(toUInt128(bytes_down))) AS down
      FROM usage WHERE subscription_id = {id:UInt64} AND segment <= {maxId:UInt64}
        AND NOT has({unsettled:Array(UInt64)}, segment)
      GROUP BY segment ORDER BY segment LIMIT {limit:UInt32}`,
    query_params: {
      id: counter.id,
      maxId: scope.maxId,
      unsettled: [...scope.unsettledIds],
      limit: earlySegmentsMax,
    },
    format: 'JSONEachRow',
    clickhouse_settings: { wait_end_of_query: 1 },
    abort_signal: deps.signal,
  });
  const bySegment = await result.json<{ segment: number; up: string; down: string }>();
  // For a deleted segment Core knows only that it was settled before `settled_before`, like all that
  // were deleted with it. It is early if the subscription was created after that. If the subscription
  // was created before that, a segment that is early for it was not deleted.
  const { rows } = await deps.client.query<{ id: number; held: boolean }>(
    `SELECT found.id, segments.id IS NOT NULL AS held
     FROM unnest($1::bigint[]) AS found (id)
       JOIN subscriptions ON subscriptions.id = $2
       LEFT JOIN segments ON segments.id = found.id
       LEFT JOIN LATERAL (
         SELECT settled_before FROM segment_prunings
         WHERE segments.id IS NULL AND up_to_id >= found.id ORDER BY up_to_id LIMIT 1) AS pruning ON true
     WHERE segments.settled_at < subscriptions.created_at
       OR pruning.settled_before <= subscriptions.created_at`,
    [bySegment.map((row) => row.segment), counter.id],
  );
  const earlyIds = new Set(rows.map((row) => row.id));
  const early = { up: 0n, down: 0n };
  for (const { id, held } of rows) if (held) deps.earlyIds.add(id);
  for (const { segment, up, down } of bySegment) {
    if (!earlyIds.has(segment)) continue;
    early.up += BigInt(up);
    early.down += BigInt(down);
  }
  return early;
}

function isEqual(counter: Traffic, sum: Traffic): boolean {
  return counter.up === clamped(sum.up) && counter.down === clamped(sum.down);
}

function clamped(sum: bigint): bigint {
  return sum > counterMax ? counterMax : sum;
}
