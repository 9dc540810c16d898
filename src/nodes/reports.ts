import type pg from 'pg';
import type { Queryable } from '../stores/postgres.ts';

/** How many reports of each kind are kept of a node. */
export const reportsKept = 100;

export type Report =
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
 * Adds a report to the node's history and drops the oldest of its kind past the bound, so that no
 * node can fill the table. Call it in the transaction that has updated the node's row: reports of
 * one node take turns on it.
 */
export async function addReport(
  client: pg.PoolClient,
  nodeId: number,
  report: Report,
): Promise<void> {
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

export interface NodeErrorReport {
  at: Date;
  /** The newest revision that the node had been issued when it reported. */
  revision: number;
  message: string;
  code: string | null;
  details: Record<string, unknown> | null;
}

/** The errors that a node reported, newest first; only the newest `reportsKept` are kept. */
export async function listErrors(db: Queryable, nodeId: number): Promise<NodeErrorReport[]> {
  const { rows } = await db.query<NodeErrorReport>(
    `SELECT created_at AS at, revision, message, code, details FROM node_reports
     WHERE node_id = $1 AND kind = 'error' ORDER BY id DESC`,
    [nodeId],
  );
  return rows;
}
