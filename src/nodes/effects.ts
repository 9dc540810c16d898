import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';
import { countLinks, type LinkCounts } from './linked.ts';
import { noSuchNode } from './lock-node.ts';

// What a command that nobody can undo would end. The operator reads it and then confirms.

export interface NodeEffects extends LinkCounts {
  name: string;
  /** Whether it has a key that works. */
  isRegistered: boolean;
  protocols: number;
}

/**
 * What ends with a node.
 * @throws CoreError NOT_FOUND.
 */
export async function nodeEffects(db: Queryable, nodeId: number): Promise<NodeEffects> {
  const { rows } = await db.query<{ id: string; name: string; isRegistered: boolean }>(
    `SELECT name, auth_key_hash IS NOT NULL AS "isRegistered" FROM nodes WHERE id = $1`,
    [nodeId],
  );
  const row = rows[0];
  if (row === undefined) throw noSuchNode(nodeId);
  const protocols = await db.query<{ id: number }>(
    'SELECT id FROM node_protocols WHERE node_id = $1',
    [nodeId],
  );
  const ids = protocols.rows.map(({ id }) => id);
  const { name, isRegistered } = row;
  return { name, isRegistered, protocols: ids.length, ...(await countLinks(db, ids)) };
}

/**
 * What ends with a protocol.
 * @throws CoreError NOT_FOUND.
 */
export async function protocolEffects(
  db: Queryable,
  nodeProtocolId: number,
): Promise<LinkCounts & { name: string }> {
  const { rows } = await db.query<{ name: string }>(
    `SELECT protocol || ' on port ' || port || ' of node ' || node_id AS name
     FROM node_protocols WHERE id = $1`,
    [nodeProtocolId],
  );
  const row = rows[0];
  if (row === undefined) {
    throw new CoreError('NOT_FOUND', `There is no protocol ${nodeProtocolId}`);
  }
  return { name: row.name, ...(await countLinks(db, [nodeProtocolId])) };
}
