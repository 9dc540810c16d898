import assert from 'node:assert/strict';
import type pg from 'pg';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { setProtocolGroups } from '../groups/membership.ts';
import { defaultGroup } from '../groups/names.ts';
import { bumpNodes, bumpSettings } from '../nodes/bump.ts';
import { lockImports } from '../nodes/lock-imports.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { lockLiveNode } from '../nodes/lock-node.ts';
import { validateProtocolSettings } from '../protocols/settings.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import type { BeforeCommit } from './before-commit.ts';
import { settingsWithSecretsKept } from './keep-secrets.ts';
import { requirePortFreeOnNode } from './port-transports.ts';
import {
  defaultProtocolName,
  freeName,
  requireNameFreeOnNode,
  takenNames,
} from './protocol-names.ts';
import { requireReferences } from './references.ts';

// The protocols that nodes serve. A function whose name ends in InTransaction works in a transaction of
// the caller that has locked the node. It takes settings that are checked already, and marks no node.

/** An inbound of a node. */
interface NodeProtocol {
  nodeProtocolId: number;
  nodeId: number;
  /** What fleet files recognise it by, unique on the node. */
  name: string;
  protocol: VpnProtocol;
  port: number;
  settings: Record<string, unknown>;
}

/** Groups by name. Every subscription that has one of them has a link to the protocol. */
interface InGroups {
  groups: string[];
}

/** Without a name it gets one of its protocol and port, like `vless-443`. */
type NewProtocol = Omit<NodeProtocol, 'nodeProtocolId' | 'name'> & {
  name?: string | undefined;
} & Partial<InGroups>;
type StoredProtocol = Omit<NodeProtocol, 'nodeProtocolId'>;

/** An absent field stays as it is. */
interface ProtocolChange {
  name?: string | undefined;
  port?: number | undefined;
  settings?: Record<string, unknown> | undefined;
  groups?: readonly string[] | undefined;
}

/**
 * Lets a node serve a protocol on a port, and marks the node as changed. Every subscription that has one of its
 * groups gets a link to it, even one that is not active, because it may become active again.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for settings that the protocol cannot use, a taken
 * port, a group that does not exist, or a revoked node.
 */
export async function addProtocol(
  pool: pg.Pool,
  added: NewProtocol,
  beforeCommit?: BeforeCommit,
): Promise<{ nodeProtocolId: number }> {
  const settings = validateProtocolSettings(added.protocol, added.settings);
  return inTransaction(pool, async (client) => {
    await lockLinks(client, 'protocols');
    await lockLiveNode(client, added.nodeId);
    const nodeProtocolId = await addProtocolInTransaction(client, { ...added, settings });
    await requireReferences(client, added.nodeId);
    await bumpSettings(client, added.nodeId, `protocol ${nodeProtocolId} added`);
    await beforeCommit?.(client, added.nodeId);
    return { nodeProtocolId };
  });
}

/**
 * The transaction must hold the lock of the links, too. Without groups the protocol is in the default group.
 * @throws CoreError INVALID_ARGUMENT for a taken port, or a group that does not exist.
 */
export async function addProtocolInTransaction(
  client: pg.PoolClient,
  added: NewProtocol,
): Promise<number> {
  const { nodeId, protocol, port, settings } = added;
  await requirePortFreeOnNode(client, added);
  const name = await nameOfNew(client, added);
  const { rows } = await client.query<{ id: number }>(
    `INSERT INTO node_protocols (node_id, protocol, port, settings, name)
     VALUES ($1, $2, $3, $4, $5) RETURNING id`,
    [nodeId, protocol, port, JSON.stringify(settings), name],
  );
  const nodeProtocolId = rows[0]?.id;
  assert(nodeProtocolId !== undefined, 'an INSERT with RETURNING returns its row');
  assert(Number.isSafeInteger(nodeProtocolId), 'ids fit a JSON number');
  await setProtocolGroups(client, nodeProtocolId, added.groups ?? [defaultGroup]);
  return nodeProtocolId;
}

/** The given name if it is free, or one that Core makes. */
async function nameOfNew(client: pg.PoolClient, added: NewProtocol): Promise<string> {
  const { nodeId, name, protocol, port } = added;
  if (name === undefined) {
    return freeName(defaultProtocolName(protocol, port), await takenNames(client, nodeId));
  }
  await requireNameFreeOnNode(client, { nodeId, name });
  return name;
}

/** One protocol, the protocols of one node, or all of them, by id. */
export async function listProtocols(
  db: Queryable,
  filter: { nodeId?: number | undefined; nodeProtocolId?: number | undefined },
): Promise<(NodeProtocol & InGroups)[]> {
  const { rows } = await db.query<NodeProtocol & InGroups>(
    `SELECT id AS "nodeProtocolId", node_id AS "nodeId", name, protocol, port, settings,
       ARRAY(SELECT g.name FROM protocol_groups pg JOIN groups g ON g.id = pg.group_id
         WHERE pg.node_protocol_id = node_protocols.id ORDER BY g.name) AS groups
     FROM node_protocols
     WHERE ($1::integer IS NULL OR node_id = $1) AND ($2::bigint IS NULL OR id = $2) ORDER BY id`,
    [filter.nodeId ?? null, filter.nodeProtocolId ?? null],
  );
  return rows;
}

/**
 * Changes the name, the port, the settings or the groups of a protocol. Keys that the new settings do not name
 * stay. So do its links, unless it leaves the groups that made them.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for settings that the protocol cannot use, a taken
 * port, a group that does not exist, or a revoked node.
 */
export async function setProtocol(
  pool: pg.Pool,
  nodeProtocolId: number,
  change: ProtocolChange,
  beforeCommit?: BeforeCommit,
): Promise<{ nodeId: number }> {
  return inTransaction(pool, async (client) => {
    if (change.name !== undefined) await lockImports(client, 'removing');
    if (change.name !== undefined || change.groups !== undefined) await lockLinks(client, 'groups');
    const { nodeId, protocol, settings: stored } = await lockProtocol(client, nodeProtocolId);
    const settings =
      change.settings === undefined
        ? undefined
        : settingsWithSecretsKept(protocol, change.settings, stored);
    const { name, port, groups } = change;
    if (name !== undefined || port !== undefined || settings !== undefined) {
      await setProtocolInTransaction(client, nodeProtocolId, { name, port, settings });
      await requireReferences(client, nodeId);
      await bumpSettings(client, nodeId, `protocol ${nodeProtocolId} changed`);
      await beforeCommit?.(client, nodeId);
    }
    // A rollback goes on: groups are no settings of the node.
    if (groups !== undefined && (await setProtocolGroups(client, nodeProtocolId, groups))) {
      await bumpNodes(client, [nodeId], `groups of protocol ${nodeProtocolId} changed`);
    }
    return { nodeId };
  });
}

/** @throws CoreError INVALID_ARGUMENT for a taken port or name. */
export async function setProtocolInTransaction(
  client: pg.PoolClient,
  nodeProtocolId: number,
  change: Omit<ProtocolChange, 'groups'>,
): Promise<void> {
  const stored = await readProtocol(client, nodeProtocolId, '');
  const { nodeId, protocol } = stored;
  const { name = stored.name, port = stored.port, settings = stored.settings } = change;
  await requirePortFreeOnNode(client, { nodeId, nodeProtocolId, protocol, port, settings });
  await requireNameFreeOnNode(client, { nodeId, nodeProtocolId, name });
  await writeProtocolInTransaction(client, nodeProtocolId, { name, port, settings });
}

/** Writes what the caller has checked: together with other changes, a port may be free that is taken now. */
export async function writeProtocolInTransaction(
  client: pg.PoolClient,
  nodeProtocolId: number,
  { name, port, settings }: { name: string; port: number; settings: Record<string, unknown> },
): Promise<void> {
  await client.query(
    'UPDATE node_protocols SET port = $2, settings = $3, name = $4 WHERE id = $1',
    [nodeProtocolId, port, JSON.stringify(settings), name],
  );
}

/**
 * Removes a protocol with its links. Clients with one of these links cannot connect again, even if an
 * operator adds the same protocol again, unless they hold a credential that was given to their subscription.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for a revoked node, or if a rule names its inbound.
 */
export async function removeProtocol(
  pool: pg.Pool,
  nodeProtocolId: number,
): Promise<{ nodeId: number }> {
  return inTransaction(pool, async (client) => {
    await lockImports(client, 'removing');
    await lockLinks(client, 'protocols');
    const { nodeId } = await lockProtocol(client, nodeProtocolId);
    await removeProtocolInTransaction(client, nodeProtocolId);
    await requireReferences(client, nodeId);
    await bumpSettings(client, nodeId, `protocol ${nodeProtocolId} removed`);
    return { nodeId };
  });
}

/** The transaction must hold the lock of the links, too. */
export async function removeProtocolInTransaction(
  client: pg.PoolClient,
  nodeProtocolId: number,
): Promise<void> {
  await client.query('DELETE FROM node_protocols WHERE id = $1', [nodeProtocolId]);
}

/** Locks the node of a protocol, and reads the protocol again, since it may have changed meanwhile. */
async function lockProtocol(
  client: pg.PoolClient,
  nodeProtocolId: number,
): Promise<StoredProtocol> {
  const { nodeId } = await readProtocol(client, nodeProtocolId, '');
  await lockLiveNode(client, nodeId);
  return readProtocol(client, nodeProtocolId, 'FOR NO KEY UPDATE');
}

async function readProtocol(
  client: pg.PoolClient,
  nodeProtocolId: number,
  lock: '' | 'FOR NO KEY UPDATE',
): Promise<StoredProtocol> {
  const { rows } = await client.query<StoredProtocol>(
    `SELECT node_id AS "nodeId", name, protocol, port, settings
     FROM node_protocols WHERE id = $1 ${lock}`,
    [nodeProtocolId],
  );
  const row = rows[0];
  if (row !== undefined) return row;
  throw new CoreError('NOT_FOUND', `There is no protocol ${nodeProtocolId}`);
}
