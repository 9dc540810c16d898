import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { recordEvents } from './events.ts';
import { showSubscription } from './show.ts';

/** A link, and the protocol that it leads to. */
interface ListedLink {
  uuid: string;
  subscriptionId: number;
  nodeProtocolId: number;
  nodeId: number;
  protocol: string;
}

/**
 * A subscription's links, in the order of their protocols' ids.
 * @throws CoreError NOT_FOUND if there is no such subscription.
 */
export async function listLinks(db: Queryable, subscriptionId: number): Promise<ListedLink[]> {
  await showSubscription(db, subscriptionId);
  const { rows } = await db.query<ListedLink>(
    `SELECT l.uuid, l.subscription_id AS "subscriptionId", p.id AS "nodeProtocolId",
       p.node_id AS "nodeId", p.protocol
     FROM subscription_links l JOIN node_protocols p ON p.id = l.node_protocol_id
     WHERE l.subscription_id = $1 ORDER BY p.id`,
    [subscriptionId],
  );
  return rows;
}

/**
 * Gives a link a new UUID. From the next revision on no configuration holds the old one.
 * @throws CoreError NOT_FOUND.
 */
export async function rotateLink(pool: pg.Pool, uuid: string): Promise<ListedLink> {
  const rotated = await inTransaction(pool, async (client) => {
    const found = await client.query<{ subscription_id: number }>(
      'SELECT subscription_id FROM subscription_links WHERE uuid = $1',
      [uuid],
    );
    const subscriptionId = found.rows[0]?.subscription_id;
    return subscriptionId === undefined ? [] : rotate(client, subscriptionId, uuid);
  });
  const link = rotated[0];
  if (link === undefined) throw new CoreError('NOT_FOUND', `There is no link ${uuid}`);
  return link;
}

/**
 * Gives all links of a subscription new UUIDs.
 * @throws CoreError NOT_FOUND.
 */
export async function rotateLinks(pool: pg.Pool, subscriptionId: number): Promise<ListedLink[]> {
  return inTransaction(pool, async (client) => rotate(client, subscriptionId, null));
}

/** Rotates all links of the subscription, or the one with this UUID. */
async function rotate(
  client: pg.PoolClient,
  subscriptionId: number,
  uuid: string | null,
): Promise<ListedLink[]> {
  // Locked before the rows: adding or removing a protocol locks its node first and then the links.
  await lockLinks(client, 'subscriptions');
  // Locked, so that the status cannot change before the transaction ends.
  const subscriptions = await client.query<{ status: string }>(
    'SELECT status FROM subscriptions WHERE id = $1 FOR NO KEY UPDATE',
    [subscriptionId],
  );
  const status = subscriptions.rows[0]?.status;
  if (status === undefined) {
    throw new CoreError('NOT_FOUND', `There is no subscription ${subscriptionId}`);
  }
  const { rows } = await client.query<ListedLink>(
    `UPDATE subscription_links l SET uuid = gen_random_uuid() FROM node_protocols p
     WHERE l.subscription_id = $1 AND ($2::uuid IS NULL OR l.uuid = $2)
       AND p.id = l.node_protocol_id
     RETURNING l.uuid, l.subscription_id AS "subscriptionId", p.id AS "nodeProtocolId",
       p.node_id AS "nodeId", p.protocol`,
    [subscriptionId, uuid],
  );
  if (rows.length === 0) return rows;
  const links = rows.toSorted((one, other) => one.nodeProtocolId - other.nodeProtocolId);
  // The event has no UUIDs: they are credentials, and events leave Core.
  const data = { nodeProtocolIds: links.map((link) => link.nodeProtocolId) };
  await recordEvents(client, [{ subscriptionId, kind: 'links_rotated', data }]);
  if (status === 'active') {
    const nodeIds = [...new Set(links.map((link) => link.nodeId))];
    const what = uuid === null ? 'links' : 'link';
    await bumpNodes(client, nodeIds, `${what} of subscription ${subscriptionId} rotated`);
  }
  return links;
}
