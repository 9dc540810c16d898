import type pg from 'pg';
import { inTransaction } from '../stores/postgres.ts';
import { notifyNode, requireNode } from './require.ts';

/**
 * Ends a node for good: its key and any code it still has stop working at once. What it reported
 * stays. Revoking it again changes nothing.
 * @throws CoreError NOT_FOUND.
 */
export async function revokeNode(pool: pg.Pool, nodeId: number): Promise<void> {
  await inTransaction(pool, async (client) => {
    await requireNode(client, nodeId);
    await client.query(
      `UPDATE nodes SET auth_key_hash = NULL, revoked_at = coalesce(revoked_at, now())
       WHERE id = $1`,
      [nodeId],
    );
    await client.query('DELETE FROM registration_codes WHERE node_id = $1', [nodeId]);
    await notifyNode(client, nodeId);
  });
}
