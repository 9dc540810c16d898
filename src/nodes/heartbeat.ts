import type pg from 'pg';
import type { Logger } from '../log.ts';
import { changesChannel } from '../stores/listen.ts';

/** Keeps `nodes.last_seen_at`, ip and reported revision within about a second of what nodes said. */
export interface Heartbeats {
  /** `revision` is what the node says that it runs; undefined where it runs nothing yet. */
  seen(nodeId: number, ip: string | undefined, revision: number | undefined): void;
  /** Writes what is left. */
  close(): Promise<void>;
}

interface Seen {
  atMs: number;
  ip: string | undefined;
  revision: number | undefined;
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
    seen(nodeId, ip, revision) {
      if (!closed) merge(pending, nodeId, { atMs: options.nowMs(), ip, revision }, 'newer');
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
  else if (age === 'newer') into.set(nodeId, { ...seen, ip: seen.ip ?? known.ip });
  else into.set(nodeId, { ...known, ip: known.ip ?? seen.ip });
}

async function writeLastSeen(pool: pg.Pool, batch: ReadonlyMap<number, Seen>): Promise<void> {
  const sorted = [...batch].sort(([a], [b]) => a - b);
  await pool.query(
    // Locked in the order of ids first, as bumpNodes does: an UPDATE alone takes its locks in
    // whatever order its plan has, and the two could wait for each other. A new address marks the
    // node, as bumpNodes would: it may stand in the configuration, where the node has no host name.
    // The sub-selects keep from the planner how many ids there are: for a few hundred it would read
    // the whole table, twice, which takes twice as long at 10,000 nodes.
    `WITH locked AS MATERIALIZED (
       SELECT n.id, n.host = '' AND n.ip <> seen.ip AS moved
       FROM nodes n
         JOIN unnest((SELECT $1::integer[]), (SELECT $3::text[])) AS seen (id, ip) USING (id)
       ORDER BY n.id FOR NO KEY UPDATE OF n
     ), written AS (
       UPDATE nodes SET
         last_seen_at = greatest(nodes.last_seen_at, to_timestamp(seen.at_ms / 1000.0)),
         ip = coalesce(seen.ip, nodes.ip),
         reported_revision = seen.revision,
         change_seq = change_seq + coalesce(moved, false)::integer,
         changed_at = CASE WHEN moved THEN coalesce(changed_at, clock_timestamp())
           ELSE changed_at END,
         change_causes = CASE WHEN moved AND NOT 'address' = ANY (change_causes)
           THEN change_causes || 'address'::text ELSE change_causes END
       FROM unnest(
           (SELECT $1::integer[]), (SELECT $2::double precision[]),
           (SELECT $3::text[]), (SELECT $4::bigint[])
         ) AS seen (id, at_ms, ip, revision)
         JOIN locked USING (id)
       WHERE nodes.id = seen.id
       RETURNING moved
     )
     SELECT pg_notify('${changesChannel}', '') FROM written WHERE moved LIMIT 1`,
    [
      sorted.map(([nodeId]) => nodeId),
      sorted.map(([, seen]) => seen.atMs),
      sorted.map(([, seen]) => seen.ip ?? null),
      sorted.map(([, seen]) => seen.revision ?? null),
    ],
  );
}
