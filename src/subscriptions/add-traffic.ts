import assert from 'node:assert/strict';
import type pg from 'pg';
import type { TrafficSums } from '../rows/sums.ts';
import { int8Array } from '../stores/int8-array.ts';
import { isFirstTrafficSql, startDurations } from './durations.ts';
import { lockCounters } from './lock-counters.ts';
import { crossedSql, deriveStatus } from './status.ts';

/** A counter stops at the largest bigint; a plain sum would be an error past it. */
const added = (column: string, sum: string): string =>
  `CASE WHEN s.${column} > 9223372036854775807 - given.${sum} THEN 9223372036854775807
     ELSE s.${column} + given.${sum} END`;

/**
 * Memory for the transaction. The hash table of 200,000 counters takes 15 MB, and the updated rows take
 * 12 MB. With Postgres' default of 4 MB both go through temporary files, which costs a tenth of the
 * update's CPU.
 */
const workMemory = '64MB';

/**
 * Adds sums to the subscriptions' counters, in the transaction that settles their segments. Marks active
 * subscriptions that reach their limit as limited and bumps their nodes. If a subscription reaches a
 * threshold of its limit, that becomes a warning (status.ts). The time of a subscription with a duration
 * starts with its first traffic (durations.ts).
 *
 * Sums and counters stop at the largest bigint. Otherwise a node that reports nonsense would make the
 * transaction fail for ever, and its stream with it.
 * @returns how many rows belong to subscriptions that exist, and which subscriptions are limited now.
 */
export async function addTraffic(
  client: pg.PoolClient,
  sums: TrafficSums,
): Promise<{ knownRows: number; limited: number[] }> {
  const { subscriptionIds, bytesUp, bytesDown, rows } = sums;
  for (const column of [bytesUp, bytesDown, rows]) {
    assert(column.length === subscriptionIds.length, 'each subscription has one sum');
  }
  if (subscriptionIds.length === 0) return { knownRows: 0, limited: [] };
  await lockCounters(client);
  await client.query(`SET LOCAL work_mem = '${workMemory}'`);
  // The update may change hundreds of thousands of rows, so it returns only what Core needs to know.
  const updated = await client.query<{ knownRows: number; crossed: number[]; first: number[] }>(
    `WITH updated AS (
       UPDATE subscriptions s SET
         traffic_bytes_up = ${added('traffic_bytes_up', 'up')},
         traffic_bytes_down = ${added('traffic_bytes_down', 'down')}
       FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
         AS given (id, up, down, rows)
       WHERE s.id = given.id
       RETURNING s.id, given.rows, ${crossedSql} AS crossed, ${isFirstTrafficSql} AS first
     )
     SELECT coalesce(sum(rows), 0)::bigint AS "knownRows",
       coalesce(json_agg(id) FILTER (WHERE crossed), '[]') AS crossed,
       coalesce(json_agg(id) FILTER (WHERE first), '[]') AS first
     FROM updated`,
    [subscriptionIds, bytesUp, bytesDown, rows].map(int8Array),
  );
  const result = updated.rows[0];
  assert(result !== undefined, 'an aggregate returns one row');
  await startDurations(client, result.first);
  return {
    knownRows: result.knownRows,
    limited: await limitCrossed(client, result.crossed),
  };
}

/**
 * Derives the status of subscriptions that crossed a limit or a threshold. They are few, and this
 * transaction has already locked their rows. Returns the ones that are limited now and were not before.
 */
async function limitCrossed(client: pg.PoolClient, crossed: number[]): Promise<number[]> {
  const changes = await deriveStatus(client, crossed);
  return changes
    .filter((change) => change.after === 'limited')
    .map((change) => change.subscriptionId);
}
