/** Where a node is in its life, as an operator sees it. */
export type NodeStatus = 'revoked' | 'pending' | 'error' | 'offline' | 'online';
/** How what a node runs stands to what it should run. */
export type SyncStatus = 'pending' | 'failed' | 'outdated' | 'synced';

export const nodeStatuses = [
  'online',
  'offline',
  'error',
  'pending',
  'revoked',
] as const satisfies readonly NodeStatus[];

/** A node as every command shows it. */
export interface NodeState {
  nodeId: number;
  name: string;
  host: string;
  ip: string;
  region: string;
  status: NodeStatus;
  syncStatus: SyncStatus;
  revision: number;
  appliedRevision: number | null;
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
  has_key: boolean;
  revoked: boolean;
  last_seen_at: Date | null;
  /** By the clock of Postgres. */
  seconds_since_seen: number | null;
  revision: number;
  applied_revision: number | null;
  sync_status: 'pending' | 'synced' | 'failed';
  error_message: string | null;
  error_code: string | null;
  error_details: Record<string, unknown> | null;
  error_at: Date | null;
}

/** Selects NodeStateRow; the caller adds its WHERE. */
export const nodeStateQuery = `SELECT id, name, host, ip, region,
  auth_key_hash IS NOT NULL AS has_key, revoked_at IS NOT NULL AS revoked, last_seen_at,
  extract(epoch FROM now() - last_seen_at)::double precision AS seconds_since_seen,
  revision, applied_revision, sync_status, error_message, error_code, error_details, error_at
  FROM nodes`;

/** What to show of a node. Pure. */
export function nodeState(row: NodeStateRow, options: { offlineSeconds: number }): NodeState {
  return {
    nodeId: row.id,
    name: row.name,
    host: row.host,
    ip: row.ip,
    region: row.region,
    status: statusOf(row, options.offlineSeconds),
    syncStatus: syncStatusOf(row),
    revision: row.revision,
    appliedRevision: row.applied_revision,
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

/** The first that holds: what an operator must act on comes before what time may heal. */
function statusOf(row: NodeStateRow, offlineSeconds: number): NodeStatus {
  if (row.revoked) return 'revoked';
  if (!row.has_key) return 'pending';
  if (row.sync_status === 'failed' || row.error_message !== null) return 'error';
  if (row.seconds_since_seen === null || row.seconds_since_seen > offlineSeconds) return 'offline';
  return 'online';
}

function syncStatusOf(row: NodeStateRow): SyncStatus {
  if (row.sync_status === 'failed') return 'failed';
  if (row.applied_revision === null) return 'pending';
  return row.applied_revision < row.revision ? 'outdated' : 'synced';
}
