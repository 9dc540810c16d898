import type pg from 'pg';
import { advisoryLocks, lockUntilCommit } from '../stores/advisory-locks.ts';

/**
 * Take it before adding subscriptions or protocols, the two sides of the links. Every subscription has a
 * link to every protocol. Without the lock, two transactions that add one of each at the same time would
 * not see each other's row, and the link between them would never be made.
 *
 * Take it also before deleting subscriptions or changing links: a protocol is added under the lock of its
 * node and then asks for these rows, so whoever holds the rows must not wait for that node.
 *
 * Transactions that add subscriptions share the lock. One that adds protocols holds it alone.
 */
export async function lockLinks(
  client: pg.PoolClient,
  adding: 'subscriptions' | 'protocols',
): Promise<void> {
  const mode = adding === 'subscriptions' ? 'shared' : 'exclusive';
  await lockUntilCommit(client, advisoryLocks.links, mode);
}
