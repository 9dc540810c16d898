import type pg from 'pg';
import { recordEvents } from './events.ts';
import { bumpLinkedNodes } from './status.ts';

/**
 * Whether the row `s` has a duration that has not started, and the sums `given` hold traffic. A settle
 * evaluates it for every row: one without a duration costs one comparison.
 */
export const isFirstTrafficSql =
  '(s.duration_seconds IS NOT NULL AND s.expires_at IS NULL AND (given.up > 0 OR given.down > 0))';

/**
 * Starts the time of subscriptions whose first traffic was settled: they expire after their duration.
 * Call it in the transaction that settles, which holds the rows.
 */
export async function startDurations(
  client: pg.PoolClient,
  subscriptionIds: readonly number[],
): Promise<void> {
  if (subscriptionIds.length === 0) return;
  const { rows } = await client.query<{ id: number; seconds: number; expiresAt: Date }>(
    `UPDATE subscriptions SET expires_at = now() + make_interval(secs => duration_seconds)
     WHERE id = ANY ($1::bigint[])
     RETURNING id, duration_seconds AS seconds, expires_at AS "expiresAt"`,
    [subscriptionIds],
  );
  await recordEvents(
    client,
    rows.map(({ id, seconds, expiresAt }) => ({
      subscriptionId: id,
      kind: 'started' as const,
      data: { durationSeconds: seconds, expiresAt },
    })),
  );
  // MTProto configurations hold the expiry of each user.
  await bumpLinkedNodes(client, subscriptionIds, 'subscriptions started');
}
