import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { parseLinkUuid } from '../render/link-uuid.ts';
import { inTransaction } from '../stores/postgres.ts';
import { recordEvents } from './events.ts';
import {
  type LinkReference,
  type ListedLink,
  readLink,
  readLinks,
  withoutSecret,
} from './links.ts';
import { bumpLinkedNodes } from './status.ts';

// New credentials for links. From the next revision on no configuration holds the old ones. The UUIDs, by which
// traffic is counted, stay.

/**
 * Gives a link a new credential.
 * @throws CoreError NOT_FOUND.
 */
export async function rotateLink(pool: pg.Pool, reference: LinkReference): Promise<ListedLink> {
  return inTransaction(pool, async (client) => {
    const { subscriptionId } = await readLink(client, reference);
    const isActive = await lockSubscription(client, subscriptionId);
    await lockLinks(client, 'subscriptions');
    const link = await readLink(client, reference);
    const { nodeProtocolId, nodeId, uuid } = link;
    const credential = randomUUID();
    await client.query(
      `INSERT INTO subscription_links (uuid, subscription_id, node_protocol_id, credential, credential_uuid)
       VALUES ($1, $2, $3, $4, $5)
       ON CONFLICT (subscription_id, node_protocol_id)
         DO UPDATE SET credential = excluded.credential, credential_uuid = excluded.credential_uuid`,
      [uuid, subscriptionId, nodeProtocolId, credential, credential],
    );
    await recordRotation(client, subscriptionId, [nodeProtocolId]);
    if (isActive) {
      await bumpNodes(client, [nodeId], `link of subscription ${subscriptionId} rotated`);
    }
    return withoutSecret(link);
  });
}

/**
 * Gives all links of a subscription new credentials. A credential that was given for it is dropped.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if it has no links, since a given credential would go unnoticed.
 */
export async function rotateLinks(pool: pg.Pool, subscriptionId: number): Promise<ListedLink[]> {
  return inTransaction(pool, async (client) => {
    const isActive = await lockSubscription(client, subscriptionId);
    await lockLinks(client, 'subscriptions');
    await client.query(
      `UPDATE subscriptions SET link_secret = gen_random_uuid(), credential = NULL, credential_uuid = NULL
       WHERE id = $1`,
      [subscriptionId],
    );
    await rotateStored(client, subscriptionId);
    const links = await readLinks(client, { subscriptionId });
    if (links.length === 0) throw withoutLinks(subscriptionId);
    await recordRotation(
      client,
      subscriptionId,
      links.map((link) => link.nodeProtocolId),
    );
    if (isActive) {
      const cause = `links of subscription ${subscriptionId} rotated`;
      await bumpLinkedNodes(client, [subscriptionId], cause);
    }
    return links.map(withoutSecret);
  });
}

function withoutLinks(subscriptionId: number): CoreError {
  const message = `Subscription ${subscriptionId} has no links, so none was rotated: its groups have no protocols. A credential that was given for it ends by: core subscription set ${subscriptionId} --credential none`;
  return new CoreError('INVALID_ARGUMENT', message);
}

/** A row is needed only for a UUID from before groups. All others go, and their credentials are derived. */
async function rotateStored(client: pg.PoolClient, subscriptionId: number): Promise<void> {
  const { rows } = await client.query<{ uuid: string; nodeProtocolId: number }>(
    `SELECT uuid, node_protocol_id AS "nodeProtocolId" FROM subscription_links
     WHERE subscription_id = $1 FOR UPDATE`,
    [subscriptionId],
  );
  const isDerived = (row: { uuid: string; nodeProtocolId: number }): boolean => {
    const ids = parseLinkUuid(row.uuid);
    return ids?.subscriptionId === subscriptionId && ids.nodeProtocolId === row.nodeProtocolId;
  };
  const uuids = rows.map((row) => ({ ...row, isDerived: isDerived(row) }));
  await client.query('DELETE FROM subscription_links WHERE uuid = ANY ($1::uuid[])', [
    uuids.filter((row) => row.isDerived).map((row) => row.uuid),
  ]);
  const kept = uuids.filter((row) => !row.isDerived).map((row) => row.uuid);
  await client.query(
    `UPDATE subscription_links l SET credential = given.credential::text, credential_uuid = given.credential
     FROM unnest($1::uuid[], $2::uuid[]) AS given (uuid, credential) WHERE l.uuid = given.uuid`,
    [kept, kept.map(() => randomUUID())],
  );
}

/** Locks a subscription, so that its status cannot change before the transaction ends. */
async function lockSubscription(client: pg.PoolClient, subscriptionId: number): Promise<boolean> {
  const { rows } = await client.query<{ status: string }>(
    'SELECT status FROM subscriptions WHERE id = $1 FOR NO KEY UPDATE',
    [subscriptionId],
  );
  if (rows[0] !== undefined) return rows[0].status === 'active';
  throw new CoreError('NOT_FOUND', `There is no subscription ${subscriptionId}`);
}

/** The event has no credentials, because events leave Core. */
async function recordRotation(
  client: pg.PoolClient,
  subscriptionId: number,
  nodeProtocolIds: number[],
): Promise<void> {
  const data = { nodeProtocolIds };
  await recordEvents(client, [{ subscriptionId, kind: 'links_rotated', data }]);
}
