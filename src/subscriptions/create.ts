import assert from 'node:assert/strict';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { inTransaction } from '../stores/postgres.ts';
import { nextResetAt, type ResetPeriod } from './period.ts';
import { type SubscriptionStatus, statusSql } from './status.ts';

export interface NewSubscription {
  userId: number;
  trafficLimitBytes: number | null;
  expiresAt: Date | null;
  /** Default: none. */
  resetPeriod?: ResetPeriod | undefined;
  /** Default: now. */
  anchorAt?: Date | null | undefined;
  disabled?: boolean | undefined;
}

/** The access of one subscription to one protocol of one node. The UUID is the credential. */
interface SubscriptionLink {
  uuid: string;
  nodeProtocolId: number;
}

/**
 * Adds a subscription with a link to every protocol of every node that is not revoked. If it is active
 * (neither disabled nor expired), those nodes are bumped.
 * @throws CoreError NOT_FOUND if there is no such user.
 */
export async function createSubscription(
  pool: pg.Pool,
  subscription: NewSubscription,
): Promise<{ subscriptionId: number; links: SubscriptionLink[] }> {
  const { userId } = subscription;
  return inTransaction(pool, async (client) => {
    await lockLinks(client, 'subscriptions');
    const users = await client.query('SELECT FROM users WHERE id = $1 FOR KEY SHARE', [userId]);
    if (users.rowCount === 0) throw new CoreError('NOT_FOUND', `There is no user ${userId}`);
    const [made] = await addSubscriptions(client, [subscription]);
    assert(made !== undefined, 'RETURNING gives the new row');
    const { subscriptionId, status } = made;
    assert(Number.isSafeInteger(subscriptionId), 'ids fit a JSON number');
    const links = await client.query<SubscriptionLink & { nodeId: number }>(
      `WITH protocols AS (
         SELECT p.id, p.node_id FROM node_protocols p
         JOIN nodes n ON n.id = p.node_id WHERE n.revoked_at IS NULL
       ), linked AS (
         INSERT INTO subscription_links (uuid, subscription_id, node_protocol_id)
         SELECT gen_random_uuid(), $1, id FROM protocols
         RETURNING uuid, node_protocol_id
       )
       SELECT uuid, node_protocol_id AS "nodeProtocolId", node_id AS "nodeId"
       FROM linked JOIN protocols ON protocols.id = node_protocol_id ORDER BY node_protocol_id`,
      [subscriptionId],
    );
    if (status === 'active') {
      const nodeIds = [...new Set(links.rows.map((link) => link.nodeId))];
      await bumpNodes(client, nodeIds, `subscription ${subscriptionId} created`);
    }
    return {
      subscriptionId,
      links: links.rows.map(({ uuid, nodeProtocolId }) => ({ uuid, nodeProtocolId })),
    };
  });
}

const statusOfNewSql = statusSql({
  disabled: 'given.disabled',
  expiresAt: 'given.expires_at',
  used: '0',
  limit: 'given.traffic_limit_bytes',
});

/**
 * Adds subscriptions and records that they were created. The users must exist, and the caller adds
 * the links.
 * @returns one item per subscription, in the order given.
 */
export async function addSubscriptions(
  client: pg.PoolClient,
  subscriptions: readonly NewSubscription[],
): Promise<{ subscriptionId: number; status: SubscriptionStatus }[]> {
  const clock = await client.query<{ now: Date }>('SELECT now()');
  const now = clock.rows[0]?.now;
  assert(now !== undefined, 'Postgres knows the time');
  const anchors = subscriptions.map((given) => given.anchorAt ?? now);
  const { rows } = await client.query<{ subscriptionId: number; status: SubscriptionStatus }>(
    `WITH given AS MATERIALIZED (
       SELECT nextval(pg_get_serial_sequence('subscriptions', 'id')) AS id, *
       FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::text[],
         $5::timestamptz[], $6::timestamptz[], $7::boolean[]) WITH ORDINALITY
         AS given (user_id, traffic_limit_bytes, expires_at, reset_period, anchor_at,
           next_reset_at, disabled, at)
     ), made AS (
       INSERT INTO subscriptions (id, user_id, traffic_limit_bytes, expires_at, reset_period,
         anchor_at, next_reset_at, disabled, status) OVERRIDING SYSTEM VALUE
       SELECT id, user_id, traffic_limit_bytes, expires_at, reset_period, anchor_at, next_reset_at,
         disabled, ${statusOfNewSql} FROM given
       RETURNING id, user_id, status
     ), events AS (
       INSERT INTO subscription_events (subscription_id, kind, data)
       SELECT id, 'created', json_build_object('userId', user_id, 'status', status) FROM made
     )
     SELECT id AS "subscriptionId", status FROM made JOIN given USING (id) ORDER BY at`,
    [
      subscriptions.map((given) => given.userId),
      subscriptions.map((given) => given.trafficLimitBytes),
      subscriptions.map((given) => given.expiresAt),
      subscriptions.map((given) => given.resetPeriod ?? 'none'),
      anchors,
      subscriptions.map((given, index) =>
        nextResetAt(given.resetPeriod ?? 'none', anchors[index] ?? now, now),
      ),
      subscriptions.map((given) => given.disabled ?? false),
    ],
  );
  return rows;
}
