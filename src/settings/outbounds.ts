import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpSettings } from '../nodes/bump.ts';
import { lockLiveNode, requireNode } from '../nodes/lock-node.ts';
import { othersTag } from '../nodes/outbound-traffic.ts';
import {
  type Outbound,
  type OutboundOptions,
  type OutboundProtocol,
  outboundOptionNames,
  validateOutbound,
} from '../protocols/outbound/outbound.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import type { BeforeCommit } from './before-commit.ts';
import { requireReferences } from './references.ts';

interface NodeOutbound {
  tag: string;
  trafficBytesUp: number;
  trafficBytesDown: number;
  /** False if Core knows the tag only from usage reports. */
  configured: boolean;
  /** Null if it is not configured. */
  protocol: OutboundProtocol | null;
  settings: Record<string, unknown>;
  /** What it has beside its settings: transport, multiplexing, the way it leaves. */
  options: OutboundOptions;
}

/**
 * Configures an outbound, after those that the node has. If Core knows the tag from usage reports, its
 * counters stay.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for an outbound that Xray would refuse or that could not
 * work, a tag that is configured already, or `othersTag`.
 */
export async function addOutbound(
  pool: pg.Pool,
  added: Outbound & { nodeId: number },
  beforeCommit?: BeforeCommit,
): Promise<void> {
  const { nodeId, ...outbound } = added;
  const { tag } = outbound;
  validateOutbound(outbound);
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
    await writeOutbound(client, nodeId, outbound, configured.length + 1);
    await orderOutbounds(client, nodeId, [...configured, tag]);
    await requireReferences(client, nodeId);
    await bumpSettings(client, nodeId, `outbound ${tag} added`);
    await beforeCommit?.(client, nodeId);
  });
}

/**
 * Replaces a configured outbound: its protocol, its settings and everything beside them.
 * @throws CoreError NOT_FOUND if it is not configured; INVALID_ARGUMENT as for a new one.
 */
export async function setOutbound(
  pool: pg.Pool,
  changed: Outbound & { nodeId: number },
  beforeCommit?: BeforeCommit,
): Promise<void> {
  const { nodeId, ...outbound } = changed;
  const { tag } = outbound;
  validateOutbound(outbound);
  await inTransaction(pool, async (client) => {
    const tags = await requireOutbound(client, nodeId, tag);
    await writeOutbound(client, nodeId, outbound, tags.indexOf(tag) + 1);
    await requireReferences(client, nodeId);
    await bumpSettings(client, nodeId, `outbound ${tag} changed`);
    await beforeCommit?.(client, nodeId);
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
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if a rule, a balancer or another outbound names it.
 */
export async function removeOutbound(
  pool: pg.Pool,
  removed: { nodeId: number; tag: string },
): Promise<void> {
  const { nodeId, tag } = removed;
  await inTransaction(pool, async (client) => {
    await requireOutbound(client, nodeId, tag);
    await unconfigureOutbounds(client, nodeId, [tag]);
    await requireReferences(client, nodeId);
    await bumpSettings(client, nodeId, `outbound ${tag} removed`);
  });
}

/**
 * Replaces all configured outbounds of a node, in this order. The caller's transaction must have locked
 * the node and checked the outbounds, and ends with `requireReferences`.
 */
export async function replaceOutbounds(
  client: pg.PoolClient,
  nodeId: number,
  outbounds: readonly Outbound[],
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
  outbound: Outbound,
  position: number,
): Promise<void> {
  const { tag, protocol, settings } = outbound;
  await client.query(
    `INSERT INTO node_outbounds (node_id, tag, protocol, settings, options, configured, position)
     VALUES ($1, $2, $3, $4, $5, true, $6)
     ON CONFLICT (node_id, tag) DO UPDATE SET protocol = excluded.protocol,
       settings = excluded.settings, options = excluded.options, configured = true,
       position = excluded.position`,
    [
      nodeId,
      tag,
      protocol,
      JSON.stringify(settings),
      JSON.stringify(optionsOf(outbound)),
      position,
    ],
  );
}

/** What an outbound has beside its settings. */
export function optionsOf(outbound: OutboundOptions): OutboundOptions {
  const named = outboundOptionNames.filter((name) => outbound[name] !== undefined);
  return Object.fromEntries(named.map((name) => [name, outbound[name]]));
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
    `UPDATE node_outbounds SET configured = false, protocol = NULL, settings = '{}', options = '{}',
       position = 0
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
       configured, protocol, settings, options
     FROM node_outbounds WHERE node_id = $1 ORDER BY configured DESC, position, tag`,
    [nodeId],
  );
  return rows;
}
