import {
  type HealthLimits,
  type NodeStateRow,
  type NodeStatus,
  nodeState,
  nodeStateQuery,
  type SyncStatus,
} from '../nodes/node-state.ts';
import type { Queryable } from '../stores/postgres.ts';

/** The difference between what a node runs and what it should run. */
export interface NodeDrift {
  nodeId: number;
  name: string;
  status: NodeStatus;
  syncStatus: SyncStatus;
  /** The revision that Core serves. */
  revision: number;
  /** The newest one that the node reported as applied. */
  appliedRevision: number | null;
  /** The revision that it runs, by its newest heartbeat. */
  reportedRevision: number | null;
  /** How many revisions the node is behind; null if Core knows of none that it runs. */
  behindBy: number | null;
  /** When Core published the first revision that the node does not run. */
  behindSince: Date | null;
  /** The revision that an operator rolled the node back to. */
  rolledBackTo: number | null;
  /** When the oldest change came that no worker has published yet. */
  unpublishedSince: Date | null;
  unpublishedCauses: string[];
  /** Why the worker cannot render it. */
  publishError: string | null;
}

type Row = NodeStateRow & { behind_since: Date | null };

/** Every node that is not revoked, by id. A fleet has ten thousand nodes at most, so nothing pages. */
export async function listDrift(db: Queryable, limits: HealthLimits): Promise<NodeDrift[]> {
  const { rows } = await db.query<Row>(
    `SELECT state.*, (SELECT min(r.created_at) FROM node_revisions r WHERE r.node_id = state.id
       AND r.revision > coalesce(state.reported_revision, state.applied_revision, 0)
       AND r.revision <= state.revision) AS behind_since
     FROM (${nodeStateQuery}) AS state WHERE NOT revoked ORDER BY id`,
  );
  return rows.map((row) => driftOf(row, limits));
}

function driftOf(row: Row, limits: HealthLimits): NodeDrift {
  const { status, syncStatus } = nodeState(row, limits);
  const runs = row.reported_revision ?? row.applied_revision;
  return {
    nodeId: row.id,
    name: row.name,
    status,
    syncStatus,
    revision: row.revision,
    appliedRevision: row.applied_revision,
    reportedRevision: row.reported_revision,
    behindBy: runs === null ? null : Math.max(0, row.revision - runs),
    behindSince: row.behind_since,
    rolledBackTo: row.pinned_revision,
    unpublishedSince: row.unpublished_since,
    unpublishedCauses: row.change_causes,
    publishError: row.publish_error,
  };
}

/** How many nodes wait for a worker to publish a change, and since when the first one has waited. */
export async function countUnpublished(
  db: Queryable,
): Promise<{ nodes: number; since: Date | null }> {
  const { rows } = await db.query<{ nodes: number; since: Date | null }>(
    `SELECT count(*)::integer AS nodes, min(changed_at) AS since FROM nodes
     WHERE change_seq > published_seq AND revoked_at IS NULL`,
  );
  return rows[0] ?? { nodes: 0, since: null };
}
