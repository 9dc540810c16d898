import assert from 'node:assert/strict';
import type pg from 'pg';
import type { VpnProtocol } from '../contract/enums.ts';
import { bumpSettings } from '../nodes/bump.ts';
import { lockLiveNode } from '../nodes/require.ts';
import { validateProtocolSettings } from '../protocols/settings.ts';
import { lockLinks } from '../stores/locks.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { requireFreePort } from './port-transports.ts';

/** An inbound of a node. */
export interface NodeProtocol {
  nodeProtocolId: number;
  nodeId: number;
  protocol: VpnProtocol;
  port: number;
  settings: Record<string, unknown>;
}

/**
 * Lets a node serve a protocol on a port. Every subscription gets a link for it, whatever its
 * status (it may be served again later), and the node a new revision.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for settings that the protocol cannot use, a taken
 * port, or a revoked node.
 */
export async function addProtocol(
  pool: pg.Pool,
  added: {
    nodeId: number;
    protocol: VpnProtocol;
    port: number;
    settings: Record<string, unknown>;
  },
): Promise<{ nodeProtocolId: number }> {
  const settings = validateProtocolSettings(added.protocol, added.settings);
  return inTransaction(pool, async (client) => {
    await lockLinks(client, 'protocols');
    await lockLiveNode(client, added.nodeId);
    const nodeProtocolId = await insertProtocol(client, { ...added, settings });
    await bumpSettings(client, added.nodeId, `protocol ${nodeProtocolId} added`);
    return { nodeProtocolId };
  });
}

/**
 * Adds checked settings. In a transaction that holds the links' lock and the node.
 * @throws CoreError INVALID_ARGUMENT for a taken port.
 */
export async function insertProtocol(
  client: pg.PoolClient,
  added: {
    nodeId: number;
    protocol: VpnProtocol;
    port: number;
    settings: Record<string, unknown>;
  },
): Promise<number> {
  const { nodeId, protocol, port, settings } = added;
  await requireFreePort(client, added);
  const { rows } = await client.query<{ id: number }>(
    `INSERT INTO node_protocols (node_id, protocol, port, settings) VALUES ($1, $2, $3, $4)
     RETURNING id`,
    [nodeId, protocol, port, JSON.stringify(settings)],
  );
  const nodeProtocolId = rows[0]?.id;
  assert(nodeProtocolId !== undefined, 'an insert returns its row');
  assert(Number.isSafeInteger(nodeProtocolId), 'ids fit a JSON number');
  await client.query(
    `INSERT INTO subscription_links (uuid, subscription_id, node_protocol_id)
     SELECT gen_random_uuid(), id, $1 FROM subscriptions`,
    [nodeProtocolId],
  );
  return nodeProtocolId;
}

/** The protocols of one node, or of all, by id. */
export async function listProtocols(
  db: Queryable,
  filter: { nodeId?: number | undefined },
): Promise<NodeProtocol[]> {
  const { rows } = await db.query<NodeProtocol>(
    `SELECT id AS "nodeProtocolId", node_id AS "nodeId", protocol, port, settings
     FROM node_protocols WHERE $1::integer IS NULL OR node_id = $1 ORDER BY id`,
    [filter.nodeId ?? null],
  );
  return rows;
}
