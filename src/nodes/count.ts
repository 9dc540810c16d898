import type { Queryable } from '../stores/postgres.ts';
import { listNodes } from './list.ts';
import { type HealthLimits, type NodeStatus, nodeStatuses } from './node-state.ts';

/** How many nodes are in each state; every state is there, also with none. */
export async function countNodes(
  db: Queryable,
  limits: HealthLimits,
): Promise<Record<NodeStatus, number>> {
  const counts = Object.fromEntries(nodeStatuses.map((status) => [status, 0])) as Record<
    NodeStatus,
    number
  >;
  for (const node of await listNodes(db, limits)) counts[node.status] += 1;
  return counts;
}
