import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { nodesChannel } from '../stores/listen.ts';
import type { Queryable } from '../stores/postgres.ts';

/**
 * Locks a node's row until the transaction ends, so that whoever changes the node takes turns.
 * @throws CoreError NOT_FOUND.
 */
export async function requireNode(
  client: pg.PoolClient,
  nodeId: number,
): Promise<{ revoked: boolean }> {
  const { rows } = await client.query<{ revoked: boolean }>(
    'SELECT revoked_at IS NOT NULL AS revoked FROM nodes WHERE id = $1 FOR NO KEY UPDATE',
    [nodeId],
  );
  const row = rows[0];
  if (row === undefined) throw new CoreError('NOT_FOUND', `There is no node ${nodeId}`);
  return row;
}

/**
 * The same for a change of what the node runs, which a revoked node never gets.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT where the node is revoked.
 */
export async function requireLiveNode(client: pg.PoolClient, nodeId: number): Promise<void> {
  const { revoked } = await requireNode(client, nodeId);
  if (revoked) throw new CoreError('INVALID_ARGUMENT', `Node ${nodeId} is revoked`);
}

/**
 * That there is such a node, without locking it.
 * @throws CoreError NOT_FOUND.
 */
export async function requireKnownNode(db: Queryable, nodeId: number): Promise<void> {
  const { rowCount } = await db.query('SELECT 1 FROM nodes WHERE id = $1', [nodeId]);
  if (rowCount !== 1) throw new CoreError('NOT_FOUND', `There is no node ${nodeId}`);
}

/** Makes every process drop the node from its cache, when and only when the transaction commits. */
export async function notifyNode(client: pg.PoolClient, nodeId: number): Promise<void> {
  await client.query('SELECT pg_notify($1, $2::text)', [nodesChannel, nodeId]);
}
