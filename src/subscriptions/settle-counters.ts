import assert from 'node:assert/strict';
import type pg from 'pg';
import type { TrafficSums } from '../rows/sums.ts';
import { int8Array } from '../stores/int8-array.ts';
import { lockCounters } from '../stores/locks.ts';
import { crossedSql, deriveStatus } from './status.ts';

/** A counter stops at the largest bigint, where the plain sum would be an error. */
const added = (column: string, sum: string): string =>
  `CASE WHEN s.${column} > 9223372036854775807 - given.${sum} THEN 9223372036854775807
     ELSE s.${column} + given.${sum} END`;

/**
 * For the transaction: 200,000 counters take 15 MB as a hash table and 12 as the updated rows. By
 * Postgres' default of 4 MB both go through temporary files, a tenth of the CPU of it all.
 */
const workMemory = '64MB';

/**
 * Adds sums to the subscriptions' counters, in the transaction that settles their segments, and
 * marks as limited the active ones that reach their limit; their nodes are bumped. Thresholds of
 * the limit that are reached become warnings (status.ts).
 *
 * A sum and a counter stop at the largest bigint: a node that reports nonsense must not make the
 * transaction, and with it the stream, fail for ever.
 * @returns how many rows belong to subscriptions that exist, and the ids that crossed their limit now.
 */
export async function addTraffic(
  client: pg.PoolClient,
  sums: TrafficSums,
): Promise<{ knownRows: number; limited: number[] }> {
  const { subscriptionIds, bytesUp, bytesDown, rows } = sums;
  for (const column of [bytesUp, bytesDown, rows]) {
    assert(column.length === subscriptionIds.length, 'one sum a subscription');
  }
  if (subscriptionIds.length === 0) return { knownRows: 0, limited: [] };
  await lockCounters(client);
  await client.query(`SET LOCAL work_mem = '${workMemory}'`);
  // Of hundreds of thousands of updated rows only what matters comes back.
  const updated = await client.query<{ knownRows: number; crossed: number[] }>(
    `WITH updated AS (
       UPDATE subscriptions s SET
         traffic_bytes_up = ${added('traffic_bytes_up', 'up')},
         traffic_bytes_down = ${added('traffic_bytes_down', 'down')}
       FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
         AS given (id, up, down, rows)
       WHERE s.id = given.id
       RETURNING s.id, given.rows, ${crossedSql} AS crossed
     )
     SELECT coalesce(sum(rows), 0)::bigint AS "knownRows",
       coalesce(json_agg(id) FILTER (WHERE crossed), '[]') AS crossed
     FROM updated`,
    [subscriptionIds, bytesUp, bytesDown, rows].map(int8Array),
  );
  const result = updated.rows[0];
  assert(result !== undefined, 'an aggregate returns its row');
  return {
    knownRows: result.knownRows,
    limited: await settleCrossings(client, result.crossed),
  };
}

/** Few at a time, and their rows are this transaction's already. Returns the newly limited ones. */
async function settleCrossings(client: pg.PoolClient, crossed: number[]): Promise<number[]> {
  const changes = await deriveStatus(client, crossed);
  return changes
    .filter((change) => change.after === 'limited')
    .map((change) => change.subscriptionId);
}
