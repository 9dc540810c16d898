import type pg from 'pg';
import type { Logger } from '../log.ts';

/** Keeps `nodes.last_seen_at` (and ip) within about a second of what the nodes reported. */
export interface Heartbeats {
  seen(nodeId: number, ip: string | undefined): void;
  /** Writes what is left. */
  close(): Promise<void>;
}

interface Seen {
  atMs: number;
  ip: string | undefined;
}

/**
 * Heartbeats of all nodes are one UPDATE each interval, so that ten thousand nodes cost one
 * statement a second. A crash forgets at most one interval of `last_seen_at`, which the next
 * heartbeat restores; nothing that is billed passes here. While Postgres is away the newest
 * heartbeat of each node is kept.
 */
export function createHeartbeats(options: {
  pool: pg.Pool;
  log: Logger;
  intervalMs: number;
  nowMs: () => number;
}): Heartbeats {
  let pending = new Map<number, Seen>();
  let flushing: Promise<void> = Promise.resolve();
  let closed = false;

  const flush = async (): Promise<void> => {
    if (pending.size === 0) return;
    const batch = pending;
    pending = new Map();
    try {
      await writeLastSeen(options.pool, batch);
    } catch (error) {
      options.log.warn({ err: error, nodes: batch.size }, 'heartbeats not written, will retry');
      // What came in meanwhile is newer than the batch that failed.
      for (const [nodeId, seen] of batch) merge(pending, nodeId, seen, 'older');
    }
  };
  const timer = setInterval(() => {
    flushing = flushing.then(flush);
  }, options.intervalMs);

  return {
    seen(nodeId, ip) {
      if (!closed) merge(pending, nodeId, { atMs: options.nowMs(), ip }, 'newer');
    },
    async close() {
      closed = true;
      clearInterval(timer);
      await flushing;
      await flush();
    },
  };
}

function merge(into: Map<number, Seen>, nodeId: number, seen: Seen, age: 'newer' | 'older'): void {
  const known = into.get(nodeId);
  if (known === undefined) into.set(nodeId, seen);
  else if (age === 'newer') into.set(nodeId, { atMs: seen.atMs, ip: seen.ip ?? known.ip });
  else into.set(nodeId, { atMs: known.atMs, ip: known.ip ?? seen.ip });
}

async function writeLastSeen(pool: pg.Pool, batch: ReadonlyMap<number, Seen>): Promise<void> {
  const sorted = [...batch].sort(([a], [b]) => a - b);
  await pool.query(
    // Locked in the order of ids first, as bumpNodes does: an UPDATE alone takes its locks in
    // whatever order its plan has, and the two could wait for each other.
    `WITH locked AS MATERIALIZED (
       SELECT id FROM nodes WHERE id = ANY ($1::integer[]) ORDER BY id FOR NO KEY UPDATE
     )
     UPDATE nodes SET
       last_seen_at = greatest(nodes.last_seen_at, to_timestamp(seen.at_ms / 1000.0)),
       ip = coalesce(seen.ip, nodes.ip)
     FROM unnest($1::integer[], $2::double precision[], $3::text[]) AS seen (id, at_ms, ip)
       JOIN locked USING (id)
     WHERE nodes.id = seen.id`,
    [
      sorted.map(([nodeId]) => nodeId),
      sorted.map(([, seen]) => seen.atMs),
      sorted.map(([, seen]) => seen.ip ?? null),
    ],
  );
}
