import type pg from 'pg';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { bumpSettings } from '../nodes/bump.ts';
import { lockLiveNode } from '../nodes/require.ts';
import { lockLinks } from '../stores/locks.ts';
import { inTransaction } from '../stores/postgres.ts';
import { settingsWithSecretsKept } from './keep-secrets.ts';
import { requireFreePort } from './port-transports.ts';

/**
 * Changes the port or the settings of a protocol. Its links stay, and so do keys that the new
 * settings do not name.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for settings that the protocol cannot use, a taken
 * port, or a revoked node.
 */
export async function setProtocol(
  pool: pg.Pool,
  nodeProtocolId: number,
  change: { port?: number | undefined; settings?: Record<string, unknown> | undefined },
): Promise<{ nodeId: number }> {
  return inTransaction(pool, async (client) => {
    const { nodeId, protocol, settings: stored } = await lockProtocol(client, nodeProtocolId);
    const settings =
      change.settings === undefined
        ? undefined
        : settingsWithSecretsKept(protocol, change.settings, stored);
    await writeProtocol(client, nodeId, nodeProtocolId, { port: change.port, settings });
    await bumpSettings(client, nodeId, `protocol ${nodeProtocolId} changed`);
    return { nodeId };
  });
}

/**
 * Ends a protocol. Its links go with it: a client that has one of them can no longer connect, also
 * where the same protocol is added again.
 * @throws CoreError NOT_FOUND.
 */
export async function removeProtocol(
  pool: pg.Pool,
  nodeProtocolId: number,
): Promise<{ nodeId: number }> {
  return inTransaction(pool, async (client) => {
    await lockLinks(client, 'protocols');
    const { nodeId } = await lockProtocol(client, nodeProtocolId);
    await dropProtocol(client, nodeProtocolId);
    await bumpSettings(client, nodeId, `protocol ${nodeProtocolId} removed`);
    return { nodeId };
  });
}

/**
 * Writes checked settings. In a transaction that holds the node.
 * @throws CoreError INVALID_ARGUMENT for a taken port.
 */
export async function writeProtocol(
  client: pg.PoolClient,
  nodeId: number,
  nodeProtocolId: number,
  change: { port?: number | undefined; settings?: Record<string, unknown> | undefined },
): Promise<void> {
  const stored = await readProtocol(client, nodeProtocolId, '');
  const { protocol } = stored;
  const { port = stored.port, settings = stored.settings } = change;
  await requireFreePort(client, { nodeId, nodeProtocolId, protocol, port, settings });
  await client.query('UPDATE node_protocols SET port = $2, settings = $3 WHERE id = $1', [
    nodeProtocolId,
    port,
    JSON.stringify(settings),
  ]);
}

/** In a transaction that holds the links' lock. */
export async function dropProtocol(client: pg.PoolClient, nodeProtocolId: number): Promise<void> {
  await client.query('DELETE FROM node_protocols WHERE id = $1', [nodeProtocolId]);
}

interface StoredProtocol {
  nodeId: number;
  protocol: VpnProtocol;
  port: number;
  settings: Record<string, unknown>;
}

/** Whoever changes a protocol holds its node; what was read before is read again under it. */
async function lockProtocol(
  client: pg.PoolClient,
  nodeProtocolId: number,
): Promise<StoredProtocol> {
  const { nodeId } = await readProtocol(client, nodeProtocolId, '');
  await lockLiveNode(client, nodeId);
  return readProtocol(client, nodeProtocolId, 'FOR UPDATE');
}

async function readProtocol(
  client: pg.PoolClient,
  nodeProtocolId: number,
  lock: '' | 'FOR UPDATE',
): Promise<StoredProtocol> {
  const { rows } = await client.query<StoredProtocol>(
    `SELECT node_id AS "nodeId", protocol, port, settings
     FROM node_protocols WHERE id = $1 ${lock}`,
    [nodeProtocolId],
  );
  const row = rows[0];
  if (row !== undefined) return row;
  throw new CoreError('NOT_FOUND', `There is no protocol ${nodeProtocolId}`);
}
