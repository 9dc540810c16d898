import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpSettings } from '../nodes/bump.ts';
import { lockLiveNode, requireNode } from '../nodes/lock-node.ts';
import { othersTag } from '../nodes/outbound-traffic.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { requireRuleTargets } from './rules.ts';

/** The outbound protocols that Xray knows. A node refuses a configuration with another name. */
export const outboundProtocols = [
  'blackhole',
  'dns',
  'freedom',
  'http',
  'hysteria',
  'loopback',
  'shadowsocks',
  'socks',
  'trojan',
  'vless',
  'vmess',
  'wireguard',
] as const;
export type OutboundProtocol = (typeof outboundProtocols)[number];

interface NodeOutbound {
  tag: string;
  trafficBytesUp: number;
  trafficBytesDown: number;
  /** False if Core knows the tag only from usage reports. */
  configured: boolean;
  /** Null if it is not configured. */
  protocol: OutboundProtocol | null;
  settings: Record<string, unknown>;
}

interface ConfiguredOutbound {
  tag: string;
  protocol: OutboundProtocol;
  settings: Record<string, unknown>;
}

/**
 * Configures an outbound, after those that the node has. If Core knows the tag from usage reports, its
 * counters stay.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if the tag is configured already, or is `othersTag`.
 */
export async function addOutbound(
  pool: pg.Pool,
  added: ConfiguredOutbound & { nodeId: number },
): Promise<void> {
  const { nodeId, tag } = added;
  if (tag === othersTag) {
    throw new CoreError(
      'INVALID_ARGUMENT',
      `${othersTag} is reserved: Core counts the traffic of tags without a row under it`,
    );
  }
  await inTransaction(pool, async (client) => {
    await lockLiveNode(client, nodeId);
    const configured = await configuredTags(client, nodeId);
    if (configured.includes(tag)) {
      throw new CoreError('INVALID_ARGUMENT', `Node ${nodeId} has an outbound ${tag} already`);
    }
    await writeOutbound(client, nodeId, added, configured.length + 1);
    await orderOutbounds(client, nodeId, [...configured, tag]);
    await requireRuleTargets(client, nodeId);
    await bumpSettings(client, nodeId, `outbound ${tag} added`);
  });
}

/**
 * Changes the protocol and the settings of a configured outbound.
 * @throws CoreError NOT_FOUND if it is not configured.
 */
export async function setOutbound(
  pool: pg.Pool,
  changed: ConfiguredOutbound & { nodeId: number },
): Promise<void> {
  const { nodeId, tag } = changed;
  await inTransaction(pool, async (client) => {
    const tags = await requireOutbound(client, nodeId, tag);
    await writeOutbound(client, nodeId, changed, tags.indexOf(tag) + 1);
    await bumpSettings(client, nodeId, `outbound ${tag} changed`);
  });
}

/**
 * Moves an outbound to a position among the configured ones, counted from 1. Traffic that matches no
 * rule goes to the first one.
 * @throws CoreError NOT_FOUND if it is not configured.
 */
export async function moveOutbound(
  pool: pg.Pool,
  moved: { nodeId: number; tag: string; position: number },
): Promise<void> {
  const { nodeId, tag, position } = moved;
  await inTransaction(pool, async (client) => {
    const tags = await requireOutbound(client, nodeId, tag);
    const others = tags.filter((other) => other !== tag);
    others.splice(position - 1, 0, tag);
    await orderOutbounds(client, nodeId, others);
    await bumpSettings(client, nodeId, `outbound ${tag} moved`);
  });
}

/**
 * Takes an outbound out of the configuration. Its counters stay.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if a rule names it.
 */
export async function removeOutbound(
  pool: pg.Pool,
  removed: { nodeId: number; tag: string },
): Promise<void> {
  const { nodeId, tag } = removed;
  await inTransaction(pool, async (client) => {
    await requireOutbound(client, nodeId, tag);
    await unconfigureOutbounds(client, nodeId, [tag]);
    await requireRuleTargets(client, nodeId);
    await bumpSettings(client, nodeId, `outbound ${tag} removed`);
  });
}

/**
 * Replaces all configured outbounds of a node, in this order. The caller's transaction must have locked
 * the node.
 */
export async function replaceOutbounds(
  client: pg.PoolClient,
  nodeId: number,
  outbounds: readonly ConfiguredOutbound[],
): Promise<void> {
  const wanted = new Set(outbounds.map((outbound) => outbound.tag));
  const configured = await configuredTags(client, nodeId);
  await unconfigureOutbounds(
    client,
    nodeId,
    configured.filter((tag) => !wanted.has(tag)),
  );
  for (const [index, outbound] of outbounds.entries()) {
    await writeOutbound(client, nodeId, outbound, index + 1);
  }
}

/** Locks the node. Returns its configured tags in their order. */
async function requireOutbound(
  client: pg.PoolClient,
  nodeId: number,
  tag: string,
): Promise<string[]> {
  await lockLiveNode(client, nodeId);
  const tags = await configuredTags(client, nodeId);
  if (tags.includes(tag)) return tags;
  throw new CoreError('NOT_FOUND', `Node ${nodeId} has no outbound ${tag} configured`);
}

async function configuredTags(client: pg.PoolClient, nodeId: number): Promise<string[]> {
  const { rows } = await client.query<{ tag: string }>(
    `SELECT tag FROM node_outbounds WHERE node_id = $1 AND configured
     ORDER BY position, tag COLLATE "C"`,
    [nodeId],
  );
  return rows.map((row) => row.tag);
}

async function writeOutbound(
  client: pg.PoolClient,
  nodeId: number,
  { tag, protocol, settings }: ConfiguredOutbound,
  position: number,
): Promise<void> {
  await client.query(
    `INSERT INTO node_outbounds (node_id, tag, protocol, settings, configured, position)
     VALUES ($1, $2, $3, $4, true, $5)
     ON CONFLICT (node_id, tag) DO UPDATE SET protocol = excluded.protocol,
       settings = excluded.settings, configured = true, position = excluded.position`,
    [nodeId, tag, protocol, JSON.stringify(settings), position],
  );
}

async function orderOutbounds(
  client: pg.PoolClient,
  nodeId: number,
  tags: readonly string[],
): Promise<void> {
  await client.query(
    `UPDATE node_outbounds o SET position = given.at
     FROM unnest($2::text[]) WITH ORDINALITY AS given (tag, at)
     WHERE o.node_id = $1 AND o.tag = given.tag`,
    [nodeId, tags],
  );
}

/** Keeps the rows with their counters, like those of tags that the node only reports. */
async function unconfigureOutbounds(
  client: pg.PoolClient,
  nodeId: number,
  tags: readonly string[],
): Promise<void> {
  await client.query(
    `UPDATE node_outbounds SET configured = false, protocol = NULL, settings = '{}', position = 0
     WHERE node_id = $1 AND tag = ANY ($2::text[])`,
    [nodeId, tags],
  );
}

/**
 * The outbounds of a node, the configured ones first and in their order.
 * @throws CoreError NOT_FOUND.
 */
export async function listOutbounds(db: Queryable, nodeId: number): Promise<NodeOutbound[]> {
  await requireNode(db, nodeId);
  const { rows } = await db.query<NodeOutbound>(
    `SELECT tag, traffic_bytes_up AS "trafficBytesUp", traffic_bytes_down AS "trafficBytesDown",
       configured, protocol, settings
     FROM node_outbounds WHERE node_id = $1 ORDER BY configured DESC, position, tag`,
    [nodeId],
  );
  return rows;
}
