import type pg from 'pg';
import type { NodeErrorDto } from '../contract/node.ts';
import { inTransaction } from '../stores/postgres.ts';
import { storableText } from '../text.ts';
import { keptDetails } from './kept-details.ts';
import { addReport } from './reports.ts';

/**
 * Marks the node as `error` and its sync status as `failed`, until a config applies well, and adds
 * the error to the node's history. The report names no revision: it counts against the newest one
 * that the node was issued. Characters that Postgres cannot hold are replaced, and large details are cut.
 */
export async function reportError(
  pool: pg.Pool,
  nodeId: number,
  error: NodeErrorDto,
): Promise<void> {
  const message = storableText(error.message);
  const code = error.code === undefined ? null : storableText(error.code);
  const details = error.details === undefined ? null : keptDetails(error.details);
  await inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ revision: number }>(
      `UPDATE nodes SET sync_status = 'failed', error_message = $2, error_code = $3,
         error_details = $4, error_at = now(), last_seen_at = now()
       WHERE id = $1 RETURNING revision`,
      [nodeId, message, code, details],
    );
    const row = rows[0];
    // Deleted since the key was looked up.
    if (row === undefined) return;
    await addReport(client, nodeId, {
      kind: 'error',
      revision: row.revision,
      message,
      code,
      details,
    });
  });
}
