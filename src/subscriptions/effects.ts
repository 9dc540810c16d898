import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';

/** What hangs on subscriptions: what an operator is told before a command that cannot be undone. */
export interface SubscriptionEffects {
  /** Name of the user who holds them. */
  userName: string;
  subscriptions: number;
  activeSubscriptions: number;
  links: number;
  /** Nodes that these links are links to. */
  nodes: number;
}

/**
 * What hangs on one subscription.
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
 * What hangs on all subscriptions of a user.
 * @throws CoreError NOT_FOUND.
 */
export function userEffects(db: Queryable, userId: number): Promise<SubscriptionEffects> {
  return readEffects(db, 'u.id = $1', userId, `There is no user ${userId}`);
}

/**
 * What hangs on one link: itself and its subscription.
 * @throws CoreError NOT_FOUND.
 */
export function linkEffects(db: Queryable, uuid: string): Promise<SubscriptionEffects> {
  return readEffects(db, 'l.uuid = $1', uuid, `There is no link ${uuid}`);
}

async function readEffects(
  db: Queryable,
  whose: string,
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
     WHERE ${whose} GROUP BY u.id`,
    [id],
  );
  const row = rows[0];
  if (row === undefined) throw new CoreError('NOT_FOUND', none);
  return row;
}
