import assert from 'node:assert/strict';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { linkedProtocolsSql } from '../nodes/linked.ts';
import { derivedCredential } from '../protocols/credential.ts';
import { linkUuid, parseLinkUuid } from '../render/link-uuid.ts';
import { hostSql } from '../render/public-address.ts';
import type { Queryable } from '../stores/postgres.ts';

/** A link: a subscription's access to a protocol. It exists while their groups meet. */
export interface ListedLink {
  /** What traffic is counted by. It is no secret, and stays the same for ever. */
  uuid: string;
  subscriptionId: number;
  nodeProtocolId: number;
  nodeId: number;
  protocol: VpnProtocol;
}

/** A link with what a client app needs to connect. The credential is a secret. */
export interface Link extends ListedLink {
  nodeName: string;
  /** The name of the protocol on its node. */
  protocolName: string;
  /** Empty if nobody has given or reported one. */
  host: string;
  ip: string;
  port: number;
  /** As stored with the protocol. */
  settings: unknown;
  /** What the client app holds: any text. */
  credential: string;
}

/** A link by its UUID, or by what it connects. */
export type LinkReference = { uuid: string } | { subscriptionId: number; nodeProtocolId: number };

/** A row of the query of links. */
export interface LinkRow extends Omit<Link, 'uuid' | 'credential'> {
  storedUuid: string | null;
  storedCredential: string | null;
  subscriptionCredential: string | null;
  linkSecret: string;
}

/**
 * In SQL: the links of the subscriptions `s` that a condition names, by subscription and protocol. They exist
 * even while a subscription has no access.
 */
export function linksSql(condition: string): string {
  return `SELECT s.id AS "subscriptionId", p.id AS "nodeProtocolId", n.id AS "nodeId", n.name AS "nodeName",
      p.name AS "protocolName",
      ${hostSql} AS host, n.ip, p.protocol, p.port, p.settings, l.uuid AS "storedUuid",
      l.credential AS "storedCredential", s.credential AS "subscriptionCredential",
      s.link_secret AS "linkSecret"
    FROM subscriptions s
    CROSS JOIN LATERAL (${linkedProtocolsSql('ARRAY[s.id]')}) linked
    JOIN node_protocols p ON p.id = linked.node_protocol_id
    JOIN nodes n ON n.id = p.node_id
    LEFT JOIN subscription_links l ON l.subscription_id = s.id AND l.node_protocol_id = p.id
    WHERE ${condition} AND n.revoked_at IS NULL
    ORDER BY s.id, p.id`;
}

/**
 * The links of a subscription, in the order of their protocols' ids, or the one to a protocol. None if there
 * is no such subscription.
 */
export async function readLinks(
  db: Queryable,
  of: { subscriptionId: number; nodeProtocolId?: number | undefined },
): Promise<Link[]> {
  const { rows } = await db.query<LinkRow>(
    linksSql('s.id = $1 AND ($2::bigint IS NULL OR p.id = $2)'),
    [of.subscriptionId, of.nodeProtocolId ?? null],
  );
  return rows.map(linkOf);
}

export function linkOf(row: LinkRow): Link {
  const { storedUuid, storedCredential, subscriptionCredential, linkSecret, ...rest } = row;
  const { subscriptionId, nodeProtocolId } = rest;
  const credential =
    storedCredential ??
    storedUuid ??
    subscriptionCredential ??
    derivedCredential(linkSecret, nodeProtocolId);
  return { ...rest, uuid: storedUuid ?? linkUuid(subscriptionId, nodeProtocolId), credential };
}

/**
 * A subscription's links without their secrets, in the order of their protocols' ids.
 * @throws CoreError NOT_FOUND if there is no such subscription.
 */
export async function listLinks(db: Queryable, subscriptionId: number): Promise<ListedLink[]> {
  await requireSubscription(db, subscriptionId);
  return (await readLinks(db, { subscriptionId })).map(withoutSecret);
}

/** @throws CoreError NOT_FOUND if there is no such subscription. */
export async function requireSubscription(db: Queryable, subscriptionId: number): Promise<void> {
  const found = await db.query('SELECT FROM subscriptions WHERE id = $1', [subscriptionId]);
  if (found.rowCount === 1) return;
  throw new CoreError('NOT_FOUND', `There is no subscription ${subscriptionId}`);
}

export function withoutSecret(link: Link): ListedLink {
  const { uuid, subscriptionId, nodeProtocolId, nodeId, protocol } = link;
  return { uuid, subscriptionId, nodeProtocolId, nodeId, protocol };
}

/**
 * One link.
 * @throws CoreError NOT_FOUND.
 */
export async function readLink(db: Queryable, reference: LinkReference): Promise<Link> {
  const of = 'uuid' in reference ? await idsOf(db, reference.uuid) : reference;
  const [link, second] = of === undefined ? [] : await readLinks(db, of);
  assert(second === undefined, 'a subscription has one link to a protocol');
  if (link !== undefined) return link;
  if ('uuid' in reference) throw new CoreError('NOT_FOUND', `There is no link ${reference.uuid}`);
  const { subscriptionId, nodeProtocolId } = reference;
  throw new CoreError(
    'NOT_FOUND',
    `Subscription ${subscriptionId} has no link to protocol ${nodeProtocolId}: one of them does not exist, or they are in no common group`,
  );
}

/** What a UUID of a link connects: by a stored row, or by the UUID itself. */
async function idsOf(
  db: Queryable,
  uuid: string,
): Promise<{ subscriptionId: number; nodeProtocolId: number } | undefined> {
  const { rows } = await db.query<{ subscriptionId: number; nodeProtocolId: number }>(
    `SELECT subscription_id AS "subscriptionId", node_protocol_id AS "nodeProtocolId"
     FROM subscription_links WHERE uuid = $1`,
    [uuid],
  );
  return rows[0] ?? parseLinkUuid(uuid);
}
