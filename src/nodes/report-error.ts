import type { NodeErrorDto } from '../contract/node.ts';
import type { Queryable } from '../stores/postgres.ts';

/** Marks the node as `error` and its sync status as `failed`, until a config applies well. */
export async function reportError(
  db: Queryable,
  nodeId: number,
  error: NodeErrorDto,
): Promise<void> {
  await db.query(
    `UPDATE nodes SET sync_status = 'failed', error_message = $2, error_code = $3,
       error_details = $4, error_at = now(), last_seen_at = now()
     WHERE id = $1`,
    [
      nodeId,
      withoutNul(error.message),
      error.code === undefined ? null : withoutNul(error.code),
      error.details === undefined ? null : JSON.stringify(error.details),
    ],
  );
}

/**
 * Postgres text cannot hold U+0000; it is shown as U+FFFD. The details are a `json` column, which
 * keeps escapes as they came.
 */
function withoutNul(text: string): string {
  return text.replaceAll('\u0000', '\uFFFD');
}
