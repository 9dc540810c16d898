import { hostSql } from '../render/public-address.ts';
import type { Queryable } from '../stores/postgres.ts';
import { noSuchNode } from './lock-node.ts';

/** The state of a node as an operator sees it. */
export type NodeStatus =
  | 'revoked'
  | 'pending'
  | 'maintenance'
  | 'error'
  | 'offline'
  | 'stale'
  | 'outdated'
  | 'online';
/** Whether a node runs what it should run. */
export type SyncStatus = 'pending' | 'failed' | 'outdated' | 'synced';

export const nodeStatuses = [
  'online',
  'outdated',
  'stale',
  'offline',
  'error',
  'maintenance',
  'pending',
  'revoked',
] as const satisfies readonly NodeStatus[];

export interface HealthLimits {
  /** A node whose newest heartbeat is older than this is stale. */
  staleSeconds: number;
  /** A node whose newest heartbeat is older than this is offline. */
  offlineSeconds: number;
}

/** A revision that a node refused, after which Core rolled the node back by itself. */
export interface FaultyRevision {
  revision: number;
  /** When Core rolled the node back. */
  since: Date;
  /** What the node reported. */
  message: string | null;
  code: string | null;
  /** Whether the node refuses the settings that it applied last, too. */
  refusesLastGood: boolean;
}

/** A node as every command shows it. */
export interface NodeState {
  nodeId: number;
  /** The operator's name for it. */
  name: string;
  /** The operator's host, or the reported one if the operator set none. The same goes for the region. */
  host: string;
  ip: string;
  region: string;
  /** What the node reported at its last registration; null if it reported nothing. */
  reportedName: string | null;
  reportedHost: string | null;
  reportedRegion: string | null;
  status: NodeStatus;
  syncStatus: SyncStatus;
  revision: number;
  appliedRevision: number | null;
  /** The revision that it runs, by its newest heartbeat. */
  reportedRevision: number | null;
  /** The revision that an operator, or Core itself, rolled it back to. */
  rolledBackTo: number | null;
  /** What Core rolled the node back for by itself; null if it did not. */
  faulty: FaultyRevision | null;
  /** What its newest heartbeat says of its programs; null for a program that it says nothing of. */
  versions: { agent: string | null; xray: string | null; telemt: string | null };
  /**
   * Set while a node reports one version of Xray after the other, so that Core renders for an older one than
   * the newest heartbeat says: that version, and the changes that each came within an hour of the last one.
   */
  versionsInTurn: { renderedFor: string | null; changes: number; newestAt: Date | null } | null;
  /** What its newest heartbeat says of its machine. */
  load: { cpuPercent: number | null; memoryBytes: number | null; uptimeSeconds: number | null };
  /** When the oldest change came that no worker has published yet. */
  unpublishedSince: Date | null;
  /** Why the worker cannot render that change. */
  publishError: string | null;
  maintenance: { since: Date; reason: string | null } | null;
  lastSeenAt: Date | null;
  lastError: {
    message: string;
    code: string | null;
    details: Record<string, unknown> | null;
    at: Date | null;
  } | null;
}

/** A row of `nodeStateQuery`. */
export interface NodeStateRow {
  id: number;
  name: string;
  host: string;
  ip: string;
  region: string;
  reported_name: string | null;
  reported_host: string | null;
  reported_region: string | null;
  has_key: boolean;
  revoked: boolean;
  last_seen_at: Date | null;
  /** By Postgres' clock. */
  seconds_since_seen: number | null;
  revision: number;
  applied_revision: number | null;
  reported_revision: number | null;
  pinned_revision: number | null;
  faulty_at: Date | null;
  faulty_revision: number | null;
  faulty_message: string | null;
  faulty_code: string | null;
  faulty_again_at: Date | null;
  agent_version: string | null;
  xray_version: string | null;
  telemt_version: string | null;
  rendered_xray_version: string | null;
  xray_changes: number | null;
  xray_changed_at: Date | null;
  cpu_percent: number | null;
  memory_bytes: number | null;
  uptime_seconds: number | null;
  unpublished_since: Date | null;
  change_causes: string[];
  publish_error: string | null;
  maintenance_at: Date | null;
  maintenance_reason: string | null;
  sync_status: 'pending' | 'synced' | 'failed';
  error_message: string | null;
  error_code: string | null;
  error_details: Record<string, unknown> | null;
  error_at: Date | null;
}

/** Selects NodeStateRow; the caller adds a WHERE or an ORDER BY. */
export const nodeStateQuery = `SELECT id, name, ${hostSql} AS host, ip,
  coalesce(nullif(region, ''), reported_region) AS region,
  nullif(reported_name, '') AS reported_name, nullif(reported_host, '') AS reported_host,
  nullif(reported_region, '') AS reported_region,
  auth_key_hash IS NOT NULL AS has_key, revoked_at IS NOT NULL AS revoked, seen.last_seen_at,
  extract(epoch FROM now() - seen.last_seen_at)::double precision AS seconds_since_seen,
  revision, applied_revision, reported_revision, pinned_revision,
  faulty_at, faulty_revision, faulty_message, faulty_code, faulty_again_at,
  agent_version, xray_version, telemt_version, rendered_xray_version, xray_changes, xray_changed_at, cpu_percent, memory_bytes, uptime_seconds,
  CASE WHEN change_seq > published_seq THEN changed_at END AS unpublished_since, change_causes,
  publish_error, maintenance_at, maintenance_reason, sync_status, error_message, error_code, error_details, error_at
  FROM nodes n LEFT JOIN heartbeats ON heartbeats.node_id = n.id,
    LATERAL (SELECT greatest(n.last_seen_at, heartbeats.last_seen_at) AS last_seen_at) AS seen`;

/** The state of every node, by id. A fleet has ten thousand nodes at most, so nothing pages. */
export async function listNodes(db: Queryable, limits: HealthLimits): Promise<NodeState[]> {
  const { rows } = await db.query<NodeStateRow>(`${nodeStateQuery} ORDER BY id`);
  return rows.map((row) => nodeState(row, limits));
}

/**
 * The state of one node.
 * @throws CoreError NOT_FOUND.
 */
export async function showNode(
  db: Queryable,
  nodeId: number,
  limits: HealthLimits,
): Promise<NodeState> {
  const { rows } = await db.query<NodeStateRow>(`${nodeStateQuery} WHERE id = $1`, [nodeId]);
  const row = rows[0];
  if (row === undefined) throw noSuchNode(nodeId);
  return nodeState(row, limits);
}

/** How many nodes have each status. A status that no node has counts 0. */
export async function countNodes(
  db: Queryable,
  limits: HealthLimits,
): Promise<Record<NodeStatus, number>> {
  const counts = Object.fromEntries(nodeStatuses.map((status) => [status, 0])) as Record<
    NodeStatus,
    number
  >;
  for (const node of await listNodes(db, limits)) counts[node.status] += 1;
  return counts;
}

/** The state that a row describes. Pure. */
export function nodeState(row: NodeStateRow, limits: HealthLimits): NodeState {
  return {
    nodeId: row.id,
    name: row.name,
    host: row.host,
    ip: row.ip,
    region: row.region,
    reportedName: row.reported_name,
    reportedHost: row.reported_host,
    reportedRegion: row.reported_region,
    status: statusOf(row, limits),
    syncStatus: syncStatusOf(row),
    revision: row.revision,
    appliedRevision: row.applied_revision,
    reportedRevision: row.reported_revision,
    rolledBackTo: row.pinned_revision,
    faulty: faultyOf(row),
    versions: { agent: row.agent_version, xray: row.xray_version, telemt: row.telemt_version },
    versionsInTurn:
      row.rendered_xray_version === row.xray_version
        ? null
        : {
            renderedFor: row.rendered_xray_version,
            changes: row.xray_changes ?? 0,
            newestAt: row.xray_changed_at,
          },
    load: {
      cpuPercent: row.cpu_percent,
      memoryBytes: row.memory_bytes,
      uptimeSeconds: row.uptime_seconds,
    },
    unpublishedSince: row.unpublished_since,
    publishError: row.publish_error,
    maintenance:
      row.maintenance_at === null
        ? null
        : { since: row.maintenance_at, reason: row.maintenance_reason },
    lastSeenAt: row.last_seen_at,
    lastError:
      row.error_message === null
        ? null
        : {
            message: row.error_message,
            code: row.error_code,
            details: row.error_details,
            at: row.error_at,
          },
  };
}

function faultyOf(row: NodeStateRow): FaultyRevision | null {
  if (row.faulty_at === null || row.faulty_revision === null) return null;
  return {
    revision: row.faulty_revision,
    since: row.faulty_at,
    message: row.faulty_message,
    code: row.faulty_code,
    refusesLastGood: row.faulty_again_at !== null,
  };
}

/**
 * The first status that applies. What an operator decided comes first, then what an operator must act
 * on, then what may pass by itself.
 */
function statusOf(row: NodeStateRow, limits: HealthLimits): NodeStatus {
  if (row.revoked) return 'revoked';
  if (!row.has_key) return 'pending';
  if (row.maintenance_at !== null) return 'maintenance';
  if (row.sync_status === 'failed' || row.error_message !== null) return 'error';
  // It serves its users, but not with the settings that the operator wants.
  if (row.faulty_at !== null) return 'error';
  const ageSeconds = row.seconds_since_seen ?? Number.POSITIVE_INFINITY;
  if (ageSeconds > limits.offlineSeconds) return 'offline';
  if (ageSeconds > limits.staleSeconds) return 'stale';
  return syncStatusOf(row) === 'outdated' ? 'outdated' : 'online';
}

function syncStatusOf(row: NodeStateRow): SyncStatus {
  if (row.sync_status === 'failed') return 'failed';
  if (row.applied_revision === null) return 'pending';
  return row.applied_revision < row.revision ? 'outdated' : 'synced';
}
