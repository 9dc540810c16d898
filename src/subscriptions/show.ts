import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';
import { type LinkReference, readLink } from './links.ts';
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
  /** Null if it does not expire, or if its time has not started. */
  expiresAt: Date | null;
  /**
   * How long it lasts from its first traffic; null if it has no duration. The time has not started while
   * `expiresAt` is null.
   */
  durationSeconds: number | null;
  resetPeriod: ResetPeriod;
  /** Periods are counted from here. */
  anchorAt: Date;
  /** Null if nothing is ever reset. */
  nextResetAt: Date | null;
  /** Names of its groups. It has a link to every protocol that is in one of them. */
  groups: string[];
  /** Whether its links have a credential that somebody gave, and not derived ones. */
  hasGivenCredential: boolean;
  /** What another system calls it, like `marzban:alice`; null if an operator created it. */
  externalId: string | null;
}

const subscriptionQuery = `SELECT s.id AS "subscriptionId", s.user_id AS "userId", s.status,
  s.traffic_bytes_up AS "trafficBytesUp", s.traffic_bytes_down AS "trafficBytesDown",
  ${usedSql}::float8 AS "usedBytes", s.traffic_limit_bytes AS "trafficLimitBytes",
  s.expires_at AS "expiresAt", s.duration_seconds AS "durationSeconds",
  s.reset_period AS "resetPeriod", s.anchor_at AS "anchorAt", s.next_reset_at AS "nextResetAt",
  ARRAY(SELECT g.name FROM subscription_groups sg JOIN groups g ON g.id = sg.group_id
    WHERE sg.subscription_id = s.id ORDER BY g.name) AS groups,
  s.credential IS NOT NULL AS "hasGivenCredential", s.external_id AS "externalId"
  FROM subscriptions s`;

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

/** What ends with the credential of a link. */
interface LinkEffects {
  uuid: string;
  /** Name of the user who holds the subscription. */
  userName: string;
  /** Whether the subscription is active, so that a client can connect now. */
  isActive: boolean;
}

/** @throws CoreError NOT_FOUND. */
export async function linkEffects(db: Queryable, reference: LinkReference): Promise<LinkEffects> {
  const { uuid, subscriptionId } = await readLink(db, reference);
  const { userName, activeSubscriptions } = await subscriptionEffects(db, subscriptionId);
  return { uuid, userName, isActive: activeSubscriptions > 0 };
}

async function readEffects(
  db: Queryable,
  condition: string,
  id: number,
  none: string,
): Promise<SubscriptionEffects> {
  const { rows } = await db.query<SubscriptionEffects>(
    `SELECT u.name AS "userName", count(s.id)::integer AS subscriptions,
       count(s.id) FILTER (WHERE s.status = 'active')::integer AS "activeSubscriptions",
       coalesce(sum(linked.links), 0)::integer AS links,
       (SELECT count(DISTINCT p.node_id)::integer FROM subscription_groups sg
         JOIN subscriptions s ON s.id = sg.subscription_id
         JOIN protocol_groups pg ON pg.group_id = sg.group_id
         JOIN node_protocols p ON p.id = pg.node_protocol_id
         JOIN nodes n ON n.id = p.node_id
         WHERE ${condition} AND s.user_id = u.id AND n.revoked_at IS NULL) AS nodes
     FROM users u
     LEFT JOIN subscriptions s ON s.user_id = u.id
     LEFT JOIN LATERAL (
       SELECT count(DISTINCT p.id) AS links FROM subscription_groups sg
       JOIN protocol_groups pg ON pg.group_id = sg.group_id
       JOIN node_protocols p ON p.id = pg.node_protocol_id
       JOIN nodes n ON n.id = p.node_id
       WHERE sg.subscription_id = s.id AND n.revoked_at IS NULL) linked ON true
     WHERE ${condition} GROUP BY u.id`,
    [id],
  );
  const row = rows[0];
  if (row === undefined) throw new CoreError('NOT_FOUND', none);
  return row;
}
