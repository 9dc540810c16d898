import type pg from 'pg';
import { CoreError } from '../errors.ts';

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

/** Makes every process drop the node from its cache, when and only when the transaction commits. */
export async function notifyNode(client: pg.PoolClient, nodeId: number): Promise<void> {
  await client.query("SELECT pg_notify('core_nodes', $1::text)", [nodeId]);
}
