import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { inTransaction } from '../stores/postgres.ts';
import { issueCode } from './codes.ts';
import type { IssuedNode } from './create.ts';
import { notifyNode, requireNode } from './require.ts';

/**
 * Issues a new registration code and ends the old key at once, for a node whose key leaked or that
 * moved to a new machine.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT where the node is revoked, which is for good.
 */
export async function rekeyNode(
  pool: pg.Pool,
  nodeId: number,
  options: { registrationSeconds: number },
): Promise<IssuedNode> {
  return inTransaction(pool, async (client) => {
    const node = await requireNode(client, nodeId);
    if (node.revoked) {
      throw new CoreError('INVALID_ARGUMENT', `Node ${nodeId} is revoked; create a new node`);
    }
    await client.query('UPDATE nodes SET auth_key_hash = NULL WHERE id = $1', [nodeId]);
    const issued = await issueCode(client, nodeId, options.registrationSeconds);
    await notifyNode(client, nodeId);
    return { nodeId, ...issued };
  });
}
