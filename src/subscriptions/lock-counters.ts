import type pg from 'pg';
import { advisoryLocks, lockUntilCommit } from '../stores/advisory-locks.ts';

/**
 * Take it before updating the counters of many subscriptions. Streams are settled side by side and share
 * subscriptions. Two UPDATEs lock their rows in the order of their plans, so each could wait for a row of
 * the other. Waiting here costs nothing, since they would wait for each other's rows in any case. Locking
 * the rows in one order beforehand takes twice as long.
 */
export async function lockCounters(client: pg.PoolClient): Promise<void> {
  await lockUntilCommit(client, advisoryLocks.counters);
}
