import { hostSql } from '../render/public-address.ts';

/** Where a node is in its life, as an operator sees it. */
export type NodeStatus =
  | 'revoked'
  | 'pending'
  | 'maintenance'
  | 'error'
  | 'offline'
  | 'stale'
  | 'outdated'
  | 'online';
/** How what a node runs stands to what it should run. */
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

/** Heartbeat ages past which a node is stale, and past which it is offline. */
export interface HealthLimits {
  staleSeconds: number;
  offlineSeconds: number;
}

/** A node as every command shows it. */
export interface NodeState {
  nodeId: number;
  /** As the operator called it. */
  name: string;
  /** What the operator set, else what the node reported. The same goes for the region. */
  host: string;
  ip: string;
  region: string;
  /** What it said of itself when it registered last; null if it said nothing. */
  reportedName: string | null;
  reportedHost: string | null;
  reportedRegion: string | null;
  status: NodeStatus;
  syncStatus: SyncStatus;
  revision: number;
  appliedRevision: number | null;
  /** What its newest heartbeat said that it runs. */
  reportedRevision: number | null;
  /** The revision whose settings it is rolled back to. */
  rolledBackTo: number | null;
  /** Since when a change waits for a worker to publish it. */
  unpublishedSince: Date | null;
  /** Why that change cannot be rendered. */
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

/** The row of `nodeStateQuery`. */
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
  /** By the clock of Postgres. */
  seconds_since_seen: number | null;
  revision: number;
  applied_revision: number | null;
  reported_revision: number | null;
  pinned_revision: number | null;
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

/** Selects NodeStateRow; the caller adds its WHERE. */
export const nodeStateQuery = `SELECT id, name, ${hostSql} AS host, ip,
  coalesce(nullif(region, ''), reported_region) AS region,
  nullif(reported_name, '') AS reported_name, nullif(reported_host, '') AS reported_host,
  nullif(reported_region, '') AS reported_region,
  auth_key_hash IS NOT NULL AS has_key, revoked_at IS NOT NULL AS revoked, seen.last_seen_at,
  extract(epoch FROM now() - seen.last_seen_at)::double precision AS seconds_since_seen,
  revision, applied_revision, reported_revision, pinned_revision,
  CASE WHEN change_seq > published_seq THEN changed_at END AS unpublished_since, change_causes,
  publish_error, maintenance_at, maintenance_reason, sync_status, error_message, error_code, error_details, error_at
  FROM nodes n LEFT JOIN heartbeats ON heartbeats.node_id = n.id,
    LATERAL (SELECT greatest(n.last_seen_at, heartbeats.last_seen_at) AS last_seen_at) AS seen`;

/** What to show of a node. Pure. */
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

/**
 * The first that holds: what an operator set, then what an operator must act on, then what time may
 * heal.
 */
function statusOf(row: NodeStateRow, limits: HealthLimits): NodeStatus {
  if (row.revoked) return 'revoked';
  if (!row.has_key) return 'pending';
  if (row.maintenance_at !== null) return 'maintenance';
  if (row.sync_status === 'failed' || row.error_message !== null) return 'error';
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
