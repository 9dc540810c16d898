import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';
import type { ResetPeriod } from './period.ts';
import { type SubscriptionStatus, usedSql } from './status.ts';

export interface Subscription {
  subscriptionId: number;
  userId: number;
  status: SubscriptionStatus;
  /** Since the subscription was made. */
  trafficBytesUp: number;
  trafficBytesDown: number;
  /** Up and down together, since the last reset; what the limit is compared with. */
  usedBytes: number;
  /** Null where the subscription has no limit. */
  trafficLimitBytes: number | null;
  /** Null where it does not expire. */
  expiresAt: Date | null;
  resetPeriod: ResetPeriod;
  /** What periods are counted from. */
  anchorAt: Date;
  /** Null where nothing is ever reset. */
  nextResetAt: Date | null;
}

const subscriptionQuery = `SELECT s.id AS "subscriptionId", s.user_id AS "userId", s.status,
  s.traffic_bytes_up AS "trafficBytesUp", s.traffic_bytes_down AS "trafficBytesDown",
  ${usedSql}::float8 AS "usedBytes", s.traffic_limit_bytes AS "trafficLimitBytes",
  s.expires_at AS "expiresAt", s.reset_period AS "resetPeriod", s.anchor_at AS "anchorAt",
  s.next_reset_at AS "nextResetAt" FROM subscriptions s`;

/**
 * One subscription with its counters.
 * @throws CoreError NOT_FOUND.
 */
export async function showSubscription(
  db: Queryable,
  subscriptionId: number,
): Promise<Subscription> {
  const { rows } = await db.query<Subscription>(`${subscriptionQuery} WHERE s.id = $1`, [
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
    `${subscriptionQuery} WHERE s.id > $1 AND ($3::bigint IS NULL OR s.user_id = $3)
     ORDER BY s.id LIMIT $2`,
    [page.afterId, page.rowsMax, page.userId ?? null],
  );
  return rows;
}
