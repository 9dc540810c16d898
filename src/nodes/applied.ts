import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';

/**
 * Records that a node runs a revision, and clears its error. Revisions only grow and every number
 * up to the current one was issued, so what is above it never was.
 * @throws CoreError REVISION_NEVER_ISSUED.
 */
export async function recordApplied(
  db: Queryable,
  nodeId: number,
  revision: number,
): Promise<void> {
  const { rowCount } = await db.query(
    // least() keeps Postgres from casting a number over 2^31 before it looks at the WHERE.
    `UPDATE nodes SET applied_revision = least($2::bigint, revision), sync_status = 'synced', last_seen_at = now(),
       error_message = NULL, error_code = NULL, error_details = NULL, error_at = NULL
     WHERE id = $1 AND $2::bigint BETWEEN 1 AND revision`,
    [nodeId, revision],
  );
  if (rowCount === 1) return;
  throw new CoreError(
    'REVISION_NEVER_ISSUED',
    `Revision ${revision} was never issued to this node`,
  );
}
