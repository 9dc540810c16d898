import type pg from 'pg';
import type { Queryable } from '../stores/postgres.ts';

/** How many of its newest revisions Core keeps of a node. It also keeps what a rollback may need. */
export const revisionsKept = 100;
/** Rows that one call of `pruneRevisions` deletes. The rest follow a minute later. */
const prunedMax = 100_000;

interface NodeRevision {
  revision: number;
  createdAt: Date;
  /** What has changed since the revision before. */
  causes: string[];
  contentBytes: number;
  /** How often the node reported it as applied. */
  applied: number;
  /** How many errors the node reported while this was its newest revision. */
  errors: number;
  isCurrent: boolean;
}

/** The revisions of a node, newest first. */
export async function listRevisions(db: Queryable, nodeId: number): Promise<NodeRevision[]> {
  const { rows } = await db.query<NodeRevision>(
    `SELECT r.revision, r.created_at AS "createdAt", r.causes,
       r.content_bytes AS "contentBytes",
       count(p.id) FILTER (WHERE p.kind = 'applied')::integer AS applied,
       count(p.id) FILTER (WHERE p.kind = 'error')::integer AS errors,
       r.revision = n.revision AS "isCurrent"
     FROM node_revisions r
     JOIN nodes n ON n.id = r.node_id
     LEFT JOIN node_reports p ON p.node_id = r.node_id AND p.revision = r.revision
     WHERE r.node_id = $1
     GROUP BY r.node_id, r.revision, n.id ORDER BY r.revision DESC`,
    [nodeId],
  );
  return rows;
}

/**
 * Deletes revisions beyond `revisionsKept`. It keeps the one that the node applied last, and the one
 * that an operator rolled the node back to. The worker calls this once a minute.
 */
export async function pruneRevisions(pool: pg.Pool): Promise<void> {
  const { rowCount } = await pool.query(
    `DELETE FROM node_revisions WHERE ctid = ANY (ARRAY(
       SELECT r.ctid FROM node_revisions r JOIN nodes n ON n.id = r.node_id
       WHERE r.revision <= n.revision - $1::integer
         AND r.revision IS DISTINCT FROM n.applied_revision
         AND r.revision IS DISTINCT FROM n.pinned_revision
       LIMIT $2))`,
    [revisionsKept, prunedMax],
  );
  if (rowCount === 0) return;
  await pool.query(
    `DELETE FROM node_settings s
     WHERE NOT EXISTS (SELECT FROM node_revisions r
         WHERE r.node_id = s.node_id AND r.settings_hash = s.settings_hash)
       AND NOT EXISTS (SELECT FROM nodes n
         WHERE n.id = s.node_id AND n.pinned_settings_hash = s.settings_hash)`,
  );
}
