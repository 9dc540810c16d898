import type pg from 'pg';
import { advisoryLocks, lockUntilCommit } from '../stores/advisory-locks.ts';

/**
 * Take it before adding subscriptions or protocols, the two sides of the links. Every subscription
 * has a link to every protocol. Without the lock, one transaction could add a subscription while
 * another one adds a protocol. Neither would see the other's row, and nobody would make the link
 * between them.
 *
 * Take it also before deleting subscriptions or changing links: whoever adds a protocol locks its
 * node first and then asks for these rows. So whoever holds the rows must not wait for that node.
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
