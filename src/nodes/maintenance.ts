import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';

/**
 * Marks a node as under maintenance, or ends that. It only changes how the node is shown: it is
 * served and counted as before. Turning it on again keeps since when it is on.
 * @throws CoreError NOT_FOUND.
 */
export async function setMaintenance(
  db: Queryable,
  nodeId: number,
  state: { on: true; reason: string | null } | { on: false },
): Promise<void> {
  const { rowCount } = await db.query(
    `UPDATE nodes SET maintenance_at = CASE WHEN $2 THEN coalesce(maintenance_at, now()) END,
       maintenance_reason = $3 WHERE id = $1`,
    [nodeId, state.on, state.on ? state.reason : null],
  );
  if (rowCount !== 1) throw new CoreError('NOT_FOUND', `There is no node ${nodeId}`);
}
