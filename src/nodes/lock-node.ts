import type pg from 'pg';
import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';

/**
 * Locks a node's row until the transaction ends, so that two changes of one node never overlap.
 * @throws CoreError NOT_FOUND.
 */
export async function lockNode(
  client: pg.PoolClient,
  nodeId: number,
): Promise<{ revoked: boolean }> {
  const { rows } = await client.query<{ revoked: boolean }>(
    'SELECT revoked_at IS NOT NULL AS revoked FROM nodes WHERE id = $1 FOR NO KEY UPDATE',
    [nodeId],
  );
  const row = rows[0];
  if (row === undefined) throw noSuchNode(nodeId);
  return row;
}

/**
 * Locks a node for a change of what it runs. A revoked node never gets a new revision.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if the node is revoked.
 */
export async function lockLiveNode(client: pg.PoolClient, nodeId: number): Promise<void> {
  const { revoked } = await lockNode(client, nodeId);
  if (revoked) throw new CoreError('INVALID_ARGUMENT', `Node ${nodeId} is revoked`);
}

/**
 * Checks that a node exists, without a lock.
 * @throws CoreError NOT_FOUND.
 */
export async function requireNode(db: Queryable, nodeId: number): Promise<void> {
  const { rowCount } = await db.query('SELECT 1 FROM nodes WHERE id = $1', [nodeId]);
  if (rowCount !== 1) throw noSuchNode(nodeId);
}

export function noSuchNode(nodeId: number): CoreError {
  return new CoreError('NOT_FOUND', `There is no node ${nodeId}`);
}
