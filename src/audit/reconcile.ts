import type pg from 'pg';
import type { ClickHouseClient } from '../stores/clickhouse.ts';
import { compareCounters } from './compare-counters.ts';
import { compareSegments, type SegmentScope } from './compare-segments.ts';
import type { Difference, Findings } from './difference.ts';
import { type Prunable, readPrunable, readPruned } from './prune.ts';
import { inQuietSnapshot } from './snapshot.ts';

/** What an audit found. */
export interface Reconciliation {
  since: Date | null;
  /** Settled segments of usage and sessions whose rows were counted. */
  segments: number;
  /** Deleted segments, whose rows were counted together; null if `since` left them out. */
  prunedSegments: number | null;
  /** Subscriptions whose counters were compared; null if `since` left them out. */
  subscriptions: number | null;
  differences: number;
  /** The first differences, at most `detailsMax` (difference.ts). */
  details: Difference[];
}

export interface ReconcileDeps {
  /** Must have two free connections. */
  pool: pg.Pool;
  clickhouse: ClickHouseClient;
}

/**
 * Compares what Core has settled with what ClickHouse holds, while the system runs: each settled
 * segment's rows, and each subscription's counters.
 *
 * It reads Postgres first, as of one moment. The segments that were settled then are in ClickHouse
 * and do not change any more. It reads ClickHouse later, when there are more rows. But it leaves out
 * rows of segments that came later or were not settled at that moment, so it shows no false
 * difference.
 *
 * With `since`, it compares only segments settled since then and no counters, because a counter
 * cannot be split by time. A counter is the sum of the whole history, so nobody may delete a segment
 * from Postgres by hand while its rows are in ClickHouse. Only prune.ts does, and it keeps sums.
 * Outbounds have counters only, so there is nothing to compare them with.
 * @throws whatever the stores throw, or the reason of `signal`.
 */
export async function reconcile(
  deps: ReconcileDeps,
  options: { since: Date | null; signal: AbortSignal },
): Promise<Reconciliation> {
  return (await examine(deps, { ...options, keptDays: 0 })).found;
}

/**
 * Does what `reconcile` does, over everything. If nothing differs, it also says which of the compared
 * segments are older than `keptDays` (0: none) and may be deleted.
 */
export async function reconcileToPrune(
  deps: ReconcileDeps,
  options: { signal: AbortSignal; keptDays: number },
): Promise<{ found: Reconciliation; prunable: Prunable | undefined }> {
  return examine(deps, { ...options, since: null });
}

async function examine(
  deps: ReconcileDeps,
  { since, signal, keptDays }: { since: Date | null; signal: AbortSignal; keptDays: number },
): Promise<{ found: Reconciliation; prunable: Prunable | undefined }> {
  return inQuietSnapshot(deps.pool, async (client) => {
    const findings: Findings = { differences: 0, details: [] };
    const pruned = await readPruned(client);
    const scope: SegmentScope = { ...(await readScope(client)), since, pruned };
    const keptIds = new Set<number>();
    const parts = { client, clickhouse: deps.clickhouse, signal, earlyIds: keptIds };
    const segments = await compareSegments(parts, scope, findings);
    const subscriptions = since === null ? await compareCounters(parts, scope, findings) : null;
    const prunedSegments = since === null ? pruned.segments : null;
    const found = { since, segments, prunedSegments, subscriptions, ...findings };
    if (findings.differences > 0 || keptDays === 0) return { found, prunable: undefined };
    const bounds = { afterId: pruned.upToId, maxId: scope.maxId, keptDays };
    const range = await readPrunable(client, bounds);
    return { found, prunable: range === undefined ? undefined : { ...range, keptIds } };
  });
}

async function readScope(client: pg.PoolClient): Promise<Omit<SegmentScope, 'since' | 'pruned'>> {
  const max = await client.query<{ id: number }>(
    'SELECT coalesce(max(id), 0)::bigint AS id FROM segments',
  );
  const unsettled = await client.query<{ id: number }>(
    "SELECT id FROM segments WHERE state = 'sealed'",
  );
  return {
    maxId: max.rows[0]?.id ?? 0,
    unsettledIds: new Set(unsettled.rows.map((row) => row.id)),
  };
}

/** How many differences are not in `details`. */
export function differencesLeftOut(found: Reconciliation): number {
  return found.differences - found.details.length;
}
