import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';

export interface Subscription {
  subscriptionId: number;
  userId: number;
  status: 'active' | 'limited' | 'expired' | 'disabled';
  trafficBytesUp: number;
  trafficBytesDown: number;
  /** Null where the subscription has no limit. */
  trafficLimitBytes: number | null;
  /** Null where it does not expire. */
  expiresAt: Date | null;
}

const subscriptionQuery = `SELECT id AS "subscriptionId", user_id AS "userId", status,
  traffic_bytes_up AS "trafficBytesUp", traffic_bytes_down AS "trafficBytesDown",
  traffic_limit_bytes AS "trafficLimitBytes", expires_at AS "expiresAt" FROM subscriptions`;

/**
 * One subscription with its counters.
 * @throws CoreError NOT_FOUND.
 */
export async function showSubscription(
  db: Queryable,
  subscriptionId: number,
): Promise<Subscription> {
  const { rows } = await db.query<Subscription>(`${subscriptionQuery} WHERE id = $1`, [
    subscriptionId,
  ]);
  const row = rows[0];
  if (row === undefined) {
    throw new CoreError('NOT_FOUND', `There is no subscription ${subscriptionId}`);
  }
  return row;
}

/** One page of subscriptions, by id, of one user or of all. */
export async function listSubscriptions(
  db: Queryable,
  page: { userId?: number | undefined; afterId: number; rowsMax: number },
): Promise<Subscription[]> {
  const { rows } = await db.query<Subscription>(
    `${subscriptionQuery} WHERE id > $1 AND ($3::bigint IS NULL OR user_id = $3)
     ORDER BY id LIMIT $2`,
    [page.afterId, page.rowsMax, page.userId ?? null],
  );
  return rows;
}
