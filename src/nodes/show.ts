import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';
import {
  type HealthLimits,
  type NodeState,
  type NodeStateRow,
  nodeState,
  nodeStateQuery,
} from './node-state.ts';

/**
 * The state of one node.
 * @throws CoreError NOT_FOUND.
 */
export async function showNode(
  db: Queryable,
  nodeId: number,
  options: HealthLimits,
): Promise<NodeState> {
  const { rows } = await db.query<NodeStateRow>(`${nodeStateQuery} WHERE id = $1`, [nodeId]);
  const row = rows[0];
  if (row === undefined) throw new CoreError('NOT_FOUND', `There is no node ${nodeId}`);
  return nodeState(row, options);
}
