import type pg from 'pg';
import type { NodeErrorDto } from '../contract/node.ts';
import { CoreError } from '../errors.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { storableText } from '../text.ts';
import { keptDetails } from './kept-details.ts';

/** How many reports of each kind Core keeps of a node. */
export const reportsKept = 100;

/** The text of an error as Core keeps it. */
export interface KeptError {
  message: string;
  code: string | null;
}

type Report =
  | { kind: 'applied'; revision: number }
  | {
      kind: 'error';
      revision: number;
      message: string;
      code: string | null;
      /** JSON text. */
      details: string | null;
    };

/**
 * Records that a node runs a revision, and clears its error. Every number up to the current revision was
 * issued, except for those that Core skipped (publish/record.ts), and no larger one.
 * @throws CoreError REVISION_NEVER_ISSUED.
 */
export async function recordApplied(
  pool: pg.Pool,
  nodeId: number,
  revision: number,
): Promise<void> {
  await inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ applied: number }>(
      // Without least() Postgres may cast a number over 2^31 before it evaluates the WHERE, and fail.
      `UPDATE nodes SET applied_revision = least($2::bigint, revision), sync_status = 'synced', last_seen_at = now(),
         error_message = NULL, error_code = NULL, error_details = NULL, error_at = NULL,
         faulty_again_at = NULL
       WHERE id = $1 AND $2::bigint BETWEEN 1 AND revision
         AND NOT coalesce(skipped_revisions @> least($2::bigint, revision)::integer, false)
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

/**
 * Marks a node as `error` and its sync status as `failed`, until it applies a configuration well, and
 * adds the error to its history. An error names no revision, so it counts against the newest one that
 * Core issued to the node. Core replaces characters that Postgres cannot hold, and cuts large
 * details.
 * @returns what Core keeps of the error. Undefined if an operator has deleted the node since its key was
 * checked.
 */
export async function recordError(
  client: pg.PoolClient,
  nodeId: number,
  error: NodeErrorDto,
): Promise<KeptError | undefined> {
  const message = storableText(error.message);
  const code = error.code === undefined ? null : storableText(error.code);
  const details = error.details === undefined ? null : keptDetails(error.details);
  const { rows } = await client.query<{ revision: number }>(
    `UPDATE nodes SET sync_status = 'failed', error_message = $2, error_code = $3,
       error_details = $4, error_at = now(), last_seen_at = now()
     WHERE id = $1 RETURNING revision`,
    [nodeId, message, code, details],
  );
  const row = rows[0];
  if (row === undefined) return undefined;
  await addReport(client, nodeId, {
    kind: 'error',
    revision: row.revision,
    message,
    code,
    details,
  });
  return { message, code };
}

/**
 * Adds a report to a node's history and drops the oldest of its kind beyond `reportsKept`, so that no
 * node can fill the table. The transaction must have updated the node's row before: that lock is what
 * keeps two reports of one node apart.
 */
async function addReport(client: pg.PoolClient, nodeId: number, report: Report): Promise<void> {
  const error = report.kind === 'error' ? report : undefined;
  await client.query(
    `INSERT INTO node_reports (node_id, kind, revision, message, code, details)
     VALUES ($1, $2, $3, $4, $5, $6)`,
    [
      nodeId,
      report.kind,
      report.revision,
      error?.message ?? null,
      error?.code ?? null,
      error?.details ?? null,
    ],
  );
  await client.query(
    `DELETE FROM node_reports WHERE node_id = $1 AND kind = $2 AND id <= (
       SELECT id FROM node_reports WHERE node_id = $1 AND kind = $2
       ORDER BY id DESC OFFSET $3 LIMIT 1)`,
    [nodeId, report.kind, reportsKept],
  );
}

interface NodeErrorReport {
  at: Date;
  /** The newest revision of the node at that time. */
  revision: number;
  message: string;
  code: string | null;
  details: Record<string, unknown> | null;
}

/** The errors that a node reported, newest first, `reportsKept` at most. */
export async function listErrors(db: Queryable, nodeId: number): Promise<NodeErrorReport[]> {
  const { rows } = await db.query<NodeErrorReport>(
    `SELECT created_at AS at, revision, message, code, details FROM node_reports
     WHERE node_id = $1 AND kind = 'error' ORDER BY id DESC`,
    [nodeId],
  );
  return rows;
}
