import type pg from 'pg';
import { advisoryLocks, lockUntilCommit } from '../stores/advisory-locks.ts';

/**
 * Take it before marking the nodes that serve some subscriptions, and before changing which protocols there
 * are or who is in which group. Whoever changes a subscription asks which nodes serve it, and marks these.
 * Without the lock, another transaction could give it one more node at the same time. A worker could then
 * render that node without the change of the subscription, and nobody would mark the node again.
 *
 * Transactions that change subscriptions share the lock. One that changes protocols or groups holds it alone. So
 * that nobody waits in a circle, lock rows of subscriptions before it, in the order of their ids. A settle does so:
 * it finds out which subscriptions reached their limits when it holds their rows. Lock rows of groups, protocols
 * and nodes after it, in this order. A new row locks those that it refers to. An import has its new rows for long
 * before it gets here, so whoever removes groups or protocols takes the lock of imports first.
 */
export async function lockLinks(
  client: pg.PoolClient,
  changing: 'subscriptions' | 'protocols' | 'groups',
): Promise<void> {
  const mode = changing === 'subscriptions' ? 'shared' : 'exclusive';
  await lockUntilCommit(client, advisoryLocks.links, mode);
}
