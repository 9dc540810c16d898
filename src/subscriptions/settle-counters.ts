import assert from 'node:assert/strict';
import type pg from 'pg';
import { lockCounters } from '../stores/locks.ts';
import { crossedSql, deriveStatus } from './status.ts';

/** What a segment adds to counters: three columns, one place a subscription, ids distinct. */
export interface TrafficSums {
  subscriptionIds: readonly number[];
  bytesUp: readonly bigint[];
  bytesDown: readonly bigint[];
}

/**
 * Adds a segment's sums to the subscriptions' counters, in the transaction that settles it, and
 * marks as limited the active ones that reach their limit; their nodes are bumped. Thresholds of
 * the limit that are reached become warnings (status.ts).
 *
 * Sums are numeric, and a counter stops at the largest bigint: a node that reports nonsense must
 * not make the transaction, and with it the stream, fail for ever.
 * @returns the ids that exist, and those that crossed their limit now.
 */
export async function addTraffic(
  client: pg.PoolClient,
  sums: TrafficSums,
): Promise<{ known: Set<number>; limited: number[] }> {
  const { subscriptionIds, bytesUp, bytesDown } = sums;
  assert(bytesUp.length === subscriptionIds.length, 'one sum a subscription');
  assert(bytesDown.length === subscriptionIds.length, 'one sum a subscription');
  if (subscriptionIds.length === 0) return { known: new Set(), limited: [] };
  await lockCounters(client);
  const { rows } = await client.query<{ id: number; crossed: boolean }>(
    `UPDATE subscriptions s SET
       traffic_bytes_up = least(s.traffic_bytes_up + given.up, 9223372036854775807),
       traffic_bytes_down = least(s.traffic_bytes_down + given.down, 9223372036854775807)
     FROM unnest($1::bigint[], $2::numeric[], $3::numeric[]) AS given (id, up, down)
     WHERE s.id = given.id
     RETURNING s.id, ${crossedSql} AS crossed`,
    [subscriptionIds, bytesUp, bytesDown],
  );
  const limited = await settleCrossings(
    client,
    rows.filter((row) => row.crossed).map((row) => row.id),
  );
  return { known: new Set(rows.map((row) => row.id)), limited };
}

/** Few at a time, and their rows are this transaction's already. Returns the newly limited ones. */
async function settleCrossings(client: pg.PoolClient, crossed: number[]): Promise<number[]> {
  const changes = await deriveStatus(client, crossed);
  return changes
    .filter((change) => change.after === 'limited')
    .map((change) => change.subscriptionId);
}
