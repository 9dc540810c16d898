import type { Queryable } from '../stores/postgres.ts';
import {
  type HealthLimits,
  type NodeState,
  type NodeStateRow,
  nodeState,
  nodeStateQuery,
} from './node-state.ts';

/** The state of every node, by id. A fleet is at most some ten thousand rows. */
export async function listNodes(db: Queryable, options: HealthLimits): Promise<NodeState[]> {
  const { rows } = await db.query<NodeStateRow>(`${nodeStateQuery} ORDER BY id`);
  return rows.map((row) => nodeState(row, options));
}
