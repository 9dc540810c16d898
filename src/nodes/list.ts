import type { Queryable } from '../stores/postgres.ts';
import { type NodeState, type NodeStateRow, nodeState, nodeStateQuery } from './node-state.ts';

/** The state of every node, by id. A fleet is at most some ten thousand rows. */
export async function listNodes(
  db: Queryable,
  options: { offlineSeconds: number },
): Promise<NodeState[]> {
  const { rows } = await db.query<NodeStateRow>(`${nodeStateQuery} ORDER BY id`);
  return rows.map((row) => nodeState(row, options));
}
