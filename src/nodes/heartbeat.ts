import type pg from 'pg';
import type { Logger } from '../log.ts';
import { hostSql } from '../render/public-address.ts';
import { changesChannel } from '../stores/listen.ts';

/** Keeps the table `heartbeats`, and `nodes.ip`, within about a second of what nodes said. */
export interface Heartbeats {
  /** `revision` is what the node says that it runs; undefined where it runs nothing yet. */
  seen(nodeId: number, ip: string | undefined, revision: number | undefined): void;
  /** Writes what is left. */
  close(): Promise<void>;
}

interface Seen {
  nodeId: number;
  atMs: number;
  ip: string | undefined;
  revision: number | undefined;
}

/** So many heartbeats wait at the least until those that a newer one has replaced are dropped. */
const keptMin = 20_000;

/**
 * Heartbeats of all nodes are one UPDATE each interval, so that ten thousand nodes cost one
 * statement a second. A crash forgets at most one interval of `last_seen_at`, which the next
 * heartbeat restores; nothing that is billed passes here.
 *
 * They wait in a list: to look for the one before of the same node, at each, would be two look-ups in
 * memory that no cache has. While Postgres is away the list is cut down to the newest of each node
 * whenever it has doubled.
 */
export function createHeartbeats(options: {
  pool: pg.Pool;
  log: Logger;
  intervalMs: number;
  nowMs: () => number;
}): Heartbeats {
  let pending: Seen[] = [];
  let keptMax = keptMin;
  let flushing: Promise<void> = Promise.resolve();
  let closed = false;

  const flush = async (): Promise<void> => {
    if (pending.length === 0) return;
    const batch = newestOfEach(pending);
    pending = [];
    try {
      await writeHeartbeats(options.pool, batch);
    } catch (error) {
      options.log.warn({ err: error, nodes: batch.length }, 'heartbeats not written, will retry');
      // What came in meanwhile is newer than the batch that failed.
      compact([...batch, ...pending]);
    }
  };
  const compact = (all: readonly Seen[]): void => {
    pending = newestOfEach(all);
    keptMax = Math.max(keptMin, 2 * pending.length);
  };
  const timer = setInterval(() => {
    flushing = flushing.then(flush);
  }, options.intervalMs);

  return {
    seen(nodeId, ip, revision) {
      if (closed) return;
      pending.push({ nodeId, atMs: options.nowMs(), ip, revision });
      if (pending.length >= keptMax) compact(pending);
    },
    async close() {
      closed = true;
      clearInterval(timer);
      await flushing;
      await flush();
    },
  };
}

/** One of each node, the latest in the list; the address may be from an earlier one. */
function newestOfEach(all: readonly Seen[]): Seen[] {
  const newest = new Map<number, Seen>();
  for (const seen of all) {
    const ip = seen.ip ?? newest.get(seen.nodeId)?.ip;
    newest.set(seen.nodeId, ip === seen.ip ? seen : { ...seen, ip });
  }
  return [...newest.values()];
}

/** What is repeated after a failure changes nothing that was written before it. */
async function writeHeartbeats(pool: pg.Pool, batch: readonly Seen[]): Promise<void> {
  const sorted = batch.toSorted((a, b) => a.nodeId - b.nodeId);
  const addressed = sorted.filter(({ ip }) => ip !== undefined);
  if (addressed.length > 0) await moveNodes(pool, addressed);
  // Postgres' text of arrays: `pg` makes the same of JavaScript's, for ten times as much.
  const values = [
    `{${sorted.map(({ nodeId }) => nodeId).join()}}`,
    `{${sorted.map(({ atMs }) => atMs).join()}}`,
    `{${sorted.map(({ revision }) => revision ?? 'NULL').join()}}`,
  ];
  // In the order of ids, since the plan goes through them one by one: two processes do not wait for
  // each other. The sub-selects keep from the planner how many ids there are: for a few hundred it
  // would read the whole table.
  const { rowCount } = await pool.query(
    `UPDATE heartbeats SET
       last_seen_at = greatest(heartbeats.last_seen_at, to_timestamp(seen.at_ms / 1000.0)),
       reported_revision = seen.revision
     FROM unnest((SELECT $1::integer[]), (SELECT $2::double precision[]), (SELECT $3::bigint[]))
       AS seen (id, at_ms, revision)
     WHERE node_id = seen.id`,
    values,
  );
  if (rowCount !== batch.length) await addFirstHeartbeats(pool, values);
}

/** Of nodes that have none yet; a node that is gone by now gets none. */
async function addFirstHeartbeats(pool: pg.Pool, values: string[]): Promise<void> {
  await pool.query(
    `INSERT INTO heartbeats (node_id, last_seen_at, reported_revision)
     SELECT seen.id, to_timestamp(seen.at_ms / 1000.0), seen.revision
     FROM unnest($1::integer[], $2::double precision[], $3::bigint[])
         AS seen (id, at_ms, revision)
       JOIN nodes USING (id)
     ORDER BY seen.id
     ON CONFLICT (node_id) DO NOTHING`,
    values,
  );
}

/**
 * Writes the addresses that changed. Rows are locked in the order of ids first, as bumpNodes does: an
 * UPDATE alone takes its locks in whatever order its plan has, and the two could wait for each other.
 * A new address marks the node, as bumpNodes would: it may stand in the configuration, where the node
 * has no host name.
 */
async function moveNodes(pool: pg.Pool, addressed: readonly Seen[]): Promise<void> {
  await pool.query(
    `WITH locked AS MATERIALIZED (
       SELECT n.id, ${hostSql} = '' AS moved, seen.ip
       FROM nodes n
         JOIN unnest((SELECT $1::integer[]), (SELECT $2::text[])) AS seen (id, ip) USING (id)
       WHERE n.ip <> seen.ip
       ORDER BY n.id FOR NO KEY UPDATE OF n
     ), written AS (
       UPDATE nodes SET
         ip = locked.ip,
         change_seq = change_seq + moved::integer,
         changed_at = CASE WHEN moved THEN coalesce(changed_at, clock_timestamp())
           ELSE changed_at END,
         change_causes = CASE WHEN moved AND NOT 'address' = ANY (change_causes)
           THEN change_causes || 'address'::text ELSE change_causes END
       FROM locked
       WHERE nodes.id = locked.id
       RETURNING moved
     )
     SELECT pg_notify('${changesChannel}', '') FROM written WHERE moved LIMIT 1`,
    [addressed.map(({ nodeId }) => nodeId), addressed.map(({ ip }) => ip)],
  );
}
