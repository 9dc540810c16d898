import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';
import type { ResetPeriod } from './period.ts';
import { type SubscriptionStatus, usedSql } from './status.ts';

export interface Subscription {
  subscriptionId: number;
  userId: number;
  status: SubscriptionStatus;
  /** Since the subscription was created. */
  trafficBytesUp: number;
  trafficBytesDown: number;
  /** Up and down together since the last reset. The limit is compared with it. */
  usedBytes: number;
  /** Null if the subscription has no limit. */
  trafficLimitBytes: number | null;
  /** Null if it does not expire. */
  expiresAt: Date | null;
  resetPeriod: ResetPeriod;
  /** Periods are counted from here. */
  anchorAt: Date;
  /** Null if nothing is ever reset. */
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

/** What an operator is told before a command that cannot be undone: what it would end. */
interface SubscriptionEffects {
  /** Name of the user who holds them. */
  userName: string;
  subscriptions: number;
  activeSubscriptions: number;
  links: number;
  /** Nodes that these links lead to. */
  nodes: number;
}

/**
 * What ends with one subscription.
 * @throws CoreError NOT_FOUND.
 */
export function subscriptionEffects(
  db: Queryable,
  subscriptionId: number,
): Promise<SubscriptionEffects> {
  const none = `There is no subscription ${subscriptionId}`;
  return readEffects(db, 's.id = $1', subscriptionId, none);
}

/**
 * What ends with all subscriptions of a user.
 * @throws CoreError NOT_FOUND.
 */
export function userEffects(db: Queryable, userId: number): Promise<SubscriptionEffects> {
  return readEffects(db, 'u.id = $1', userId, `There is no user ${userId}`);
}

/**
 * One link and its subscription.
 * @throws CoreError NOT_FOUND.
 */
export function linkEffects(db: Queryable, uuid: string): Promise<SubscriptionEffects> {
  return readEffects(db, 'l.uuid = $1', uuid, `There is no link ${uuid}`);
}

async function readEffects(
  db: Queryable,
  condition: string,
  id: number | string,
  none: string,
): Promise<SubscriptionEffects> {
  const { rows } = await db.query<SubscriptionEffects>(
    `SELECT u.name AS "userName", count(DISTINCT s.id)::integer AS subscriptions,
       count(DISTINCT s.id) FILTER (WHERE s.status = 'active')::integer AS "activeSubscriptions",
       count(l.uuid)::integer AS links, count(DISTINCT p.node_id)::integer AS nodes
     FROM users u
     LEFT JOIN subscriptions s ON s.user_id = u.id
     LEFT JOIN subscription_links l ON l.subscription_id = s.id
     LEFT JOIN node_protocols p ON p.id = l.node_protocol_id
     WHERE ${condition} GROUP BY u.id`,
    [id],
  );
  const row = rows[0];
  if (row === undefined) throw new CoreError('NOT_FOUND', none);
  return row;
}
