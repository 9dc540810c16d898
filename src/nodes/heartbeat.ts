import type pg from 'pg';
import type { Logger } from '../log.ts';
import { hostSql } from '../render/public-address.ts';
import { changesChannel } from './channels.ts';
import { createVersionWriter, type LoadReport, loadValues, type Versions } from './node-details.ts';

/** Writes heartbeats to the table `heartbeats`, and new addresses to `nodes.ip`, within a second. */
export interface Heartbeats {
  /** @param revision The one that the node runs; undefined if it runs none yet. */
  seen(
    nodeId: number,
    ip: string | undefined,
    revision: number | undefined,
    details?: NodeDetails,
  ): void;
  /** Writes the rest. */
  close(): Promise<void>;
}

/** What a heartbeat says of the programs and the machine of its node. Older agents say nothing of it. */
interface NodeDetails {
  versions?: Versions | undefined;
  load?: LoadReport | undefined;
}

interface Seen extends NodeDetails {
  nodeId: number;
  atMs: number;
  ip: string | undefined;
  revision: number | undefined;
}

/** A list of fewer waiting heartbeats drops none. */
const waitingMin = 20_000;

/**
 * Writes the heartbeats of all nodes with one UPDATE an interval, so that ten thousand nodes cost one
 * statement a second. A crash loses one interval of `last_seen_at` at most, and the next heartbeat
 * restores it. Nothing that is billed passes here.
 *
 * Heartbeats wait in a list, because a search for the node's earlier one would cost each heartbeat two
 * cache misses. While Postgres is away, only the newest heartbeat of each node stays whenever the list
 * has doubled.
 */
export function createHeartbeats(options: {
  pool: pg.Pool;
  log: Logger;
  intervalMs: number;
  nowMs: () => number;
}): Heartbeats {
  let waiting: Seen[] = [];
  let waitingMax = waitingMin;
  let writing: Promise<void> = Promise.resolve();
  let closed = false;
  const versionWriter = createVersionWriter(options.nowMs);

  const writeWaiting = async (): Promise<void> => {
    if (waiting.length === 0) return;
    const batch = newestOfEach(waiting);
    waiting = [];
    try {
      await writeHeartbeats(options.pool, batch);
      await versionWriter.write(options.pool, batch);
    } catch (error) {
      options.log.warn({ err: error, nodes: batch.length }, 'heartbeats not written, will retry');
      // What has come meanwhile is newer than the batch that failed, so it goes last.
      keepNewest([...batch, ...waiting]);
    }
  };
  const keepNewest = (all: readonly Seen[]): void => {
    waiting = newestOfEach(all);
    waitingMax = Math.max(waitingMin, 2 * waiting.length);
  };
  const timer = setInterval(() => {
    writing = writing.then(writeWaiting);
  }, options.intervalMs);

  return {
    seen(nodeId, ip, revision, details) {
      if (closed) return;
      const { versions, load } = details ?? {};
      waiting.push({ nodeId, atMs: options.nowMs(), ip, revision, versions, load });
      if (waiting.length >= waitingMax) keepNewest(waiting);
    },
    async close() {
      closed = true;
      clearInterval(timer);
      await writing;
      await writeWaiting();
    },
  };
}

/** The last heartbeat of each node in the list, with the last address that any of them had. */
function newestOfEach(all: readonly Seen[]): Seen[] {
  const newest = new Map<number, Seen>();
  for (const seen of all) {
    const ip = seen.ip ?? newest.get(seen.nodeId)?.ip;
    newest.set(seen.nodeId, ip === seen.ip ? seen : { ...seen, ip });
  }
  return [...newest.values()];
}

/** May be repeated after a failure: what it has written already does not change. */
async function writeHeartbeats(pool: pg.Pool, batch: readonly Seen[]): Promise<void> {
  const sorted = batch.toSorted((a, b) => a.nodeId - b.nodeId);
  const addressed = sorted.filter(({ ip }) => ip !== undefined);
  if (addressed.length > 0) await writeAddresses(pool, addressed);
  // Arrays in Postgres' own text. `pg` would make the same text and take ten times as long.
  const values = [
    `{${sorted.map(({ nodeId }) => nodeId).join()}}`,
    `{${sorted.map(({ atMs }) => atMs).join()}}`,
    `{${sorted.map(({ revision }) => revision ?? 'NULL').join()}}`,
    ...loadValues(sorted),
  ];
  // The plan goes through the ids one by one, in their order, so two processes never wait for each
  // other. The sub-selects hide the number of ids from the planner, because for a few hundred it
  // would read the whole table.
  const { rowCount } = await pool.query(
    `UPDATE heartbeats SET
       last_seen_at = greatest(heartbeats.last_seen_at, to_timestamp(seen.at_ms / 1000.0)),
       reported_revision = seen.revision, cpu_percent = seen.cpu_percent,
       memory_bytes = seen.memory_bytes, uptime_seconds = seen.uptime_seconds
     FROM unnest((SELECT $1::integer[]), (SELECT $2::double precision[]), (SELECT $3::bigint[]),
         (SELECT $4::double precision[]), (SELECT $5::bigint[]), (SELECT $6::bigint[]))
       AS seen (id, at_ms, revision, cpu_percent, memory_bytes, uptime_seconds)
     WHERE node_id = seen.id`,
    values,
  );
  if (rowCount !== batch.length) await addFirstHeartbeats(pool, values);
}

/** Adds the rows of nodes that have none yet. A node that was deleted meanwhile gets none. */
async function addFirstHeartbeats(pool: pg.Pool, values: string[]): Promise<void> {
  await pool.query(
    `INSERT INTO heartbeats (node_id, last_seen_at, reported_revision, cpu_percent, memory_bytes,
       uptime_seconds)
     SELECT seen.id, to_timestamp(seen.at_ms / 1000.0), seen.revision, seen.cpu_percent,
       seen.memory_bytes, seen.uptime_seconds
     FROM unnest($1::integer[], $2::double precision[], $3::bigint[], $4::double precision[],
           $5::bigint[], $6::bigint[])
         AS seen (id, at_ms, revision, cpu_percent, memory_bytes, uptime_seconds)
       JOIN nodes USING (id)
     ORDER BY seen.id
     ON CONFLICT (node_id) DO NOTHING`,
    values,
  );
}

/**
 * Writes the addresses that changed. If the node has no host name, its address may be part of its
 * configuration. Then a new address marks the node, as `bumpNodes` does.
 *
 * It locks the rows in the order of their ids first, as `bumpNodes` does. An UPDATE alone would lock
 * them in the order of its plan, and the two could wait for each other.
 */
async function writeAddresses(pool: pg.Pool, addressed: readonly Seen[]): Promise<void> {
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
