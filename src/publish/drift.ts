import {
  type FaultyRevision,
  type HealthLimits,
  type NodeState,
  type NodeStateRow,
  type NodeStatus,
  nodeState,
  nodeStateQuery,
  type SyncStatus,
} from '../nodes/node-state.ts';
import type { ProtocolRow } from '../render/node-rows.ts';
import {
  protocolsWithRequirements,
  type VersionFault,
  versionFaults,
} from '../render/xray-versions.ts';
import type { Queryable } from '../stores/postgres.ts';
import { type RawPart, readRawParts } from './raw-parts.ts';
import { type LeftOutProtocol, leftOutSql } from './rolled-back.ts';

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
  /** The revision that an operator, or Core itself, rolled the node back to. */
  rolledBackTo: number | null;
  /** What Core rolled the node back for by itself; null if it did not. */
  faulty: FaultyRevision | null;
  /** The protocols of that revision that were removed since, so that the node does not get them. */
  leftOut: LeftOutProtocol[];
  /** What Core merges into its configuration without a check. */
  raw: RawPart[];
  versions: NodeState['versions'];
  versionsInTurn: NodeState['versionsInTurn'];
  /** What the node's version of Xray cannot do for its protocols. */
  versionFaults: VersionFault[];
  /** When the oldest change came that no worker has published yet. */
  unpublishedSince: Date | null;
  unpublishedCauses: string[];
  /** Why the worker cannot render it. */
  publishError: string | null;
}

type Row = NodeStateRow & { behind_since: Date | null; left_out: LeftOutProtocol[] | null };

/** Every node that is not revoked, by id. A fleet has ten thousand nodes at most, so nothing pages. */
export async function listDrift(db: Queryable, limits: HealthLimits): Promise<NodeDrift[]> {
  const { rows } = await db.query<Row>(
    `SELECT state.*, (SELECT min(r.created_at) FROM node_revisions r WHERE r.node_id = state.id
       AND r.revision > coalesce(state.reported_revision, state.applied_revision, 0)
       AND r.revision <= state.revision) AS behind_since,
       (SELECT (${leftOutSql('s.settings', 's.node_id')})
        FROM nodes n JOIN node_settings s ON s.node_id = n.id
          AND s.settings_hash = n.pinned_settings_hash WHERE n.id = state.id) AS left_out
     FROM (${nodeStateQuery}) AS state WHERE NOT revoked ORDER BY id`,
  );
  const faults = await readVersionFaults(db);
  const raw = await readRawParts(db);
  return rows.map((row) => ({
    ...driftOf(row, faults.get(row.id) ?? [], limits),
    raw: raw.get(row.id) ?? [],
  }));
}

/**
 * What the versions of Xray that nodes report cannot do for their protocols, by node.
 * @param nodeId Only this node; otherwise all.
 */
export async function readVersionFaults(
  db: Queryable,
  nodeId?: number,
): Promise<Map<number, VersionFault[]>> {
  const { rows } = await db.query<Pick<ProtocolRow, 'id' | 'protocol' | 'settings'> & Reported>(
    `SELECT p.id, p.protocol, p.settings, p.node_id AS "nodeId", h.rendered_xray_version AS version
     FROM node_protocols p JOIN heartbeats h USING (node_id)
     WHERE h.rendered_xray_version IS NOT NULL AND p.protocol = ANY ($1::text[])
       AND ($2::integer IS NULL OR p.node_id = $2) ORDER BY p.id`,
    [protocolsWithRequirements, nodeId ?? null],
  );
  const found = new Map<number, VersionFault[]>();
  for (const { nodeId, version, ...protocol } of rows) {
    const faults = versionFaults(version, [protocol]);
    if (faults.length > 0) found.set(nodeId, [...(found.get(nodeId) ?? []), ...faults]);
  }
  return found;
}

interface Reported {
  nodeId: number;
  version: string;
}

function driftOf(
  row: Row,
  versionFaults: VersionFault[],
  limits: HealthLimits,
): Omit<NodeDrift, 'raw'> {
  const { status, syncStatus, faulty, versions, versionsInTurn } = nodeState(row, limits);
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
    faulty,
    leftOut: row.left_out ?? [],
    versions,
    versionsInTurn,
    versionFaults,
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
