import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { inTransaction } from '../stores/postgres.ts';
import { recordEvents } from './events.ts';
import { lockCounters } from './lock-counters.ts';
import { subscriptionEffects } from './show.ts';
import { bumpLinkedNodes } from './status.ts';

/**
 * Deletes a subscription with its links and its history of resets, and bumps the nodes that served it.
 * Its rows stay in ClickHouse. Rows that arrive later count as rows of an unknown subscription.
 * @returns how many links were deleted.
 * @throws CoreError NOT_FOUND.
 */
export async function deleteSubscription(
  pool: pg.Pool,
  subscriptionId: number,
): Promise<{ links: number }> {
  return inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ id: number; status: string }>(
      'SELECT id, status FROM subscriptions WHERE id = $1 FOR UPDATE',
      [subscriptionId],
    );
    if (rows.length === 0) {
      throw new CoreError('NOT_FOUND', `There is no subscription ${subscriptionId}`);
    }
    const { links } = await subscriptionEffects(client, subscriptionId);
    await deleteLocked(client, rows, `subscription ${subscriptionId} deleted`);
    return { links };
  });
}

/**
 * Deletes a user with all subscriptions.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if a subscription is active and `force` is not set.
 */
export async function deleteUser(
  pool: pg.Pool,
  userId: number,
  options: { force: boolean },
): Promise<{ userId: number; subscriptions: number }> {
  return inTransaction(pool, async (client) => {
    // An import holds on to its users for minutes. It is waited for before the lock of the counters, since
    // every settle waits for whoever has that. A settle locks no user.
    const users = await client.query('SELECT FROM users WHERE id = $1 FOR UPDATE', [userId]);
    if (users.rowCount === 0) throw new CoreError('NOT_FOUND', `There is no user ${userId}`);
    // The counters are locked before the subscriptions, because a settle locks many of them in its own order.
    await lockCounters(client);
    const { rows } = await client.query<{ id: number; status: string }>(
      'SELECT id, status FROM subscriptions WHERE user_id = $1 ORDER BY id FOR UPDATE',
      [userId],
    );
    const active = rows.filter((row) => row.status === 'active').length;
    if (!options.force) requireInactive(userId, active);
    await deleteLocked(client, rows, `user ${userId} deleted`);
    await client.query('DELETE FROM users WHERE id = $1', [userId]);
    return { userId, subscriptions: rows.length };
  });
}

/** @throws CoreError INVALID_ARGUMENT if a user has active subscriptions. */
export function requireInactive(userId: number, activeSubscriptions: number): void {
  if (activeSubscriptions === 0) return;
  const message = `User ${userId} has active subscriptions (${activeSubscriptions}); delete them too with --force`;
  throw new CoreError('INVALID_ARGUMENT', message);
}

async function deleteLocked(
  client: pg.PoolClient,
  locked: readonly { id: number; status: string }[],
  cause: string,
): Promise<void> {
  // The rows in groups go, too, even if no node serves a subscription.
  await lockLinks(client, 'subscriptions');
  // Bumped first, while its groups still say which nodes.
  await bumpLinkedNodes(
    client,
    locked.filter((row) => row.status === 'active').map((row) => row.id),
    cause,
  );
  await recordEvents(
    client,
    locked.map((row) => ({
      subscriptionId: row.id,
      kind: 'deleted' as const,
      data: { status: row.status },
    })),
  );
  await client.query('DELETE FROM subscriptions WHERE id = ANY ($1::bigint[])', [
    locked.map((row) => row.id),
  ]);
}
