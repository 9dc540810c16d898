import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { inTransaction } from '../stores/postgres.ts';
import { addReport } from './reports.ts';

/**
 * Records that a node runs a revision, and clears its error. Revisions only grow and every number
 * up to the current one was issued, so what is above it never was.
 * @throws CoreError REVISION_NEVER_ISSUED.
 */
export async function recordApplied(
  pool: pg.Pool,
  nodeId: number,
  revision: number,
): Promise<void> {
  await inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ applied: number }>(
      // least() keeps Postgres from casting a number over 2^31 before it looks at the WHERE.
      `UPDATE nodes SET applied_revision = least($2::bigint, revision), sync_status = 'synced', last_seen_at = now(),
         error_message = NULL, error_code = NULL, error_details = NULL, error_at = NULL
       WHERE id = $1 AND $2::bigint BETWEEN 1 AND revision
       RETURNING applied_revision AS applied`,
      [nodeId, revision],
    );
    const row = rows[0];
    if (row === undefined) {
      throw new CoreError(
        'REVISION_NEVER_ISSUED',
        `Revision ${revision} was never issued to this node`,
      );
    }
    await addReport(client, nodeId, { kind: 'applied', revision: row.applied });
  });
}
