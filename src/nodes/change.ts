import assert from 'node:assert/strict';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { bumpNodes } from './bump.ts';
import { notifyNode } from './channels.ts';
import { nodeEffects } from './effects.ts';
import { lockImports } from './lock-imports.ts';
import { lockLinks } from './lock-links.ts';
import { lockNode, noSuchNode } from './lock-node.ts';
import { issueCode } from './registration.ts';

// What an operator does to a node, from its creation to its end. A function whose name ends in
// InTransaction works in a transaction that the caller has open.

/** A node that can register once, with the code, before `expiresAt`. */
export interface IssuedNode {
  nodeId: number;
  /** Core stores only the hash of the code, so nobody can show it a second time. */
  code: string;
  expiresAt: Date;
}

/** What an operator sets of a node. If the host or the region is empty, the reported one counts. */
interface NewNode {
  name: string;
  region: string;
  host: string;
  ip: string;
}

/** Adds a node and issues its registration code. Revision 1 is rendered when somebody needs it. */
export async function createNode(
  pool: pg.Pool,
  node: NewNode,
  options: { registrationSeconds: number },
): Promise<IssuedNode> {
  return inTransaction(pool, (client) => createNodeInTransaction(client, node, options));
}

export async function createNodeInTransaction(
  client: pg.PoolClient,
  node: NewNode,
  options: { registrationSeconds: number },
): Promise<IssuedNode> {
  const { rows } = await client.query<{ id: number }>(
    'INSERT INTO nodes (name, region, host, ip) VALUES ($1, $2, $3, $4) RETURNING id',
    [node.name, node.region, node.host, node.ip],
  );
  const nodeId = rows[0]?.id;
  assert(nodeId !== undefined, 'an INSERT with RETURNING returns its row');
  return { nodeId, ...(await issueCode(client, nodeId, options.registrationSeconds)) };
}

/** An absent field stays as it is. */
export type NodeChange = { [Field in keyof NewNode]?: string | undefined };

/**
 * Changes a node's name and place. A later registration does not replace the name, the host or the
 * region. But the next address that the node reports replaces the one given here.
 * @throws CoreError NOT_FOUND.
 */
export async function updateNode(pool: pg.Pool, nodeId: number, change: NodeChange): Promise<void> {
  await inTransaction(pool, (client) => updateNodeInTransaction(client, nodeId, change));
}

export async function updateNodeInTransaction(
  client: pg.PoolClient,
  nodeId: number,
  change: NodeChange,
): Promise<void> {
  await lockNode(client, nodeId);
  await client.query(
    `UPDATE nodes SET name = coalesce($2, name), region = coalesce($3, region),
       host = coalesce($4, host), ip = coalesce($5, ip) WHERE id = $1`,
    [nodeId, change.name ?? null, change.region ?? null, change.host ?? null, change.ip ?? null],
  );
  // The host or the address may be part of its configuration.
  await bumpNodes(client, [nodeId], 'node settings');
}

/**
 * Marks a node as under maintenance, or ends the maintenance. This changes only the status that
 * operators see: Core serves and counts the node as before. If the node is under maintenance already,
 * the start stays and only the reason changes.
 * @throws CoreError NOT_FOUND.
 */
export async function setMaintenance(
  db: Queryable,
  nodeId: number,
  state: { on: true; reason: string | null } | { on: false },
): Promise<void> {
  const { rowCount } = await db.query(
    `UPDATE nodes SET maintenance_at = CASE WHEN $2 THEN coalesce(maintenance_at, now()) END,
       maintenance_reason = $3 WHERE id = $1`,
    [nodeId, state.on, state.on ? state.reason : null],
  );
  if (rowCount !== 1) throw noSuchNode(nodeId);
}

/**
 * Issues a new registration code and ends the old key at once. Use it if the key leaked, or if the
 * node moved to another machine.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if the node is revoked, since nothing undoes that.
 */
export async function rekeyNode(
  pool: pg.Pool,
  nodeId: number,
  options: { registrationSeconds: number },
): Promise<IssuedNode> {
  return inTransaction(pool, async (client) => {
    const node = await lockNode(client, nodeId);
    if (node.revoked) {
      throw new CoreError('INVALID_ARGUMENT', `Node ${nodeId} is revoked; create a new node`);
    }
    await client.query('UPDATE nodes SET auth_key_hash = NULL WHERE id = $1', [nodeId]);
    const issued = await issueCode(client, nodeId, options.registrationSeconds);
    await notifyNode(client, nodeId);
    return { nodeId, ...issued };
  });
}

/**
 * Shuts a node out for ever: its key, and its code if it has one, stop working at once. What it
 * reported stays. A second call changes nothing.
 * @throws CoreError NOT_FOUND.
 */
export async function revokeNode(pool: pg.Pool, nodeId: number): Promise<void> {
  await inTransaction(pool, async (client) => {
    await lockNode(client, nodeId);
    await client.query(
      `UPDATE nodes SET auth_key_hash = NULL, revoked_at = coalesce(revoked_at, now())
       WHERE id = $1`,
      [nodeId],
    );
    await client.query('DELETE FROM registration_codes WHERE node_id = $1', [nodeId]);
    await notifyNode(client, nodeId);
  });
}

/**
 * Removes a node with its protocols and their links, its outbounds and their counters, its rules and
 * its history. Its key stops working at once. Its users' usage stays in ClickHouse and in their
 * counters.
 * @returns how many protocols and links it removed.
 * @throws CoreError NOT_FOUND.
 */
export async function deleteNode(
  pool: pg.Pool,
  nodeId: number,
): Promise<{ protocols: number; links: number }> {
  return inTransaction(pool, async (client) => {
    await lockImports(client, 'removing');
    return deleteNodeInTransaction(client, nodeId);
  });
}

/** The transaction must hold the lock of imports. */
export async function deleteNodeInTransaction(
  client: pg.PoolClient,
  nodeId: number,
): Promise<{ protocols: number; links: number }> {
  await lockLinks(client, 'protocols');
  await lockNode(client, nodeId);
  const { protocols, links } = await nodeEffects(client, nodeId);
  await client.query('DELETE FROM nodes WHERE id = $1', [nodeId]);
  await notifyNode(client, nodeId);
  return { protocols, links };
}
