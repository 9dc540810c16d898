import assert from 'node:assert/strict';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { lockLinks } from '../stores/locks.ts';
import { inTransaction } from '../stores/postgres.ts';
import { insertSubscriptions, type NewSubscription } from './insert.ts';

/** The credential of one subscription on one protocol of one node. */
export interface SubscriptionLink {
  uuid: string;
  nodeProtocolId: number;
}

/**
 * Adds a subscription with a link to every protocol of every node that is not revoked, and bumps
 * those nodes where it is active (it is not where it is disabled, or its expiry is past).
 * @throws CoreError NOT_FOUND where there is no such user.
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
    const [made] = await insertSubscriptions(client, [subscription]);
    assert(made !== undefined, 'an insert returns its row');
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
