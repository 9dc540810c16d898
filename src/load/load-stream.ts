import type pg from 'pg';
import type { BufferPool } from '../buffer-pool.ts';
import { CoreError } from '../errors.ts';
import type { Failpoint } from '../failpoints.ts';
import type { OutboundPayload } from '../rows/segment-rows.ts';
import type { Entries } from '../spool/entries.ts';
import { type TrimRedis, trimSettled } from '../spool/trim.ts';
import type { ClickHouseClient } from '../stores/clickhouse.ts';
import { type Group, groupDueInMs, openGroup } from './group.ts';
import { type Inserted, insertSegment } from './insert.ts';
import { recordError } from './last-error.ts';
import { readSealed, type Sealed, type Segment } from './seal.ts';
import { boundSilence, keepingSession, silentMsMax } from './session.ts';
import { createSettling, type Settling } from './settling.ts';
import { createSource, type Source } from './source.ts';

export interface LoadDeps {
  pool: pg.Pool;
  redis: TrimRedis;
  clickhouse: ClickHouseClient;
  /** For rows, packed and sorted; shared by the streams of a worker. */
  buffers: BufferPool;
  segmentRowsMax: number;
  /** Least time that a group of segments is gathered; see group.ts. */
  groupMsMin?: number | undefined;
  /** Bytes of packed rows that a group of segments may hold back in Redis; see group.ts. */
  groupBytesMax?: number | undefined;
  /** From this attempt on a segment that ClickHouse refuses for its data is bisected; see insert.ts. */
  poisonAttempts?: number | undefined;
  /**
   * Asked before each segment, by how many there were and whether there is likely to be more at once;
   * false ends the run with what it has.
   */
  goesOn?: ((segments: number, isMore: boolean) => boolean) | undefined;
  /** Awaited between the inserts of a segment's months, with how long the last one took. */
  pace?: ((insertMs: number) => Promise<void>) | undefined;
  failpoint?: Failpoint | undefined;
  /** See session.ts; shorter in tests. */
  silentMsMax?: number | undefined;
  /** See bisect.ts; lower in tests. */
  refusedRowsMax?: number | undefined;
}

export type StreamRun =
  | { outcome: 'drained'; segments: number; rows: number }
  /** There may be more; the next run goes on. */
  | { outcome: 'paused'; segments: number; rows: number }
  /** Another worker holds the stream. */
  | { outcome: 'locked' };

const groupBytesMaxDefault = 268_435_456;
/**
 * How often a group that waits for its time looks for new entries, from the begin of one look to that
 * of the next, so that a slow insert makes nobody wait twice. Each look may make a segment, and an
 * insert costs ClickHouse 60 to 80 ms of CPU, later merges included, however small it is: where
 * much is coming in that is little beside the rows' own share, and they are seen sooner.
 */
const lookEveryMs = { busy: 500, quiet: 1_000 };
/** A segment of at least this share of the largest one says that much is coming in. */
const busyShare = 0.125;

/**
 * Loads what a stream holds: seals and inserts segment after segment, and settles and trims them in
 * groups. It seals, and asks before each insert, on the one Postgres connection that holds the
 * stream's advisory lock; when that connection dies, the lock and this run's ability to seal or insert
 * die with it. A run that falls silent loses it. While a segment is inserted the next one is read, and
 * while a group is settled, on another connection, the next one is gathered.
 */
export async function runStream(deps: LoadDeps, stream: string): Promise<StreamRun> {
  const client = await deps.pool.connect();
  // A connection that failed, or may still hold the lock, is closed: that frees the lock for sure.
  let destroy = true;
  try {
    const lock = await client.query<{ locked: boolean }>(
      'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS locked',
      [stream],
    );
    if (lock.rows[0]?.locked !== true) {
      destroy = false;
      return { outcome: 'locked' };
    }
    await boundSilence(client, deps.silentMsMax ?? silentMsMax);
    const run = await loadAndSettle(deps, client, stream);
    await boundSilence(client, 0);
    await client.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [stream]);
    destroy = false;
    return run;
  } finally {
    client.release(destroy);
  }
}

/** Nothing of the run is written any more once this has ended, however it ended. */
async function loadAndSettle(
  deps: LoadDeps,
  client: pg.PoolClient,
  stream: string,
): Promise<StreamRun> {
  const settling = createSettling(deps);
  const source = createSource({ ...deps, client }, { stream, rowsMax: deps.segmentRowsMax });
  try {
    const run = await loadSegments({ ...deps, client, stream, source, settling });
    await keepingSession({ ...deps, client }, settling.end);
    return run;
  } finally {
    // Of two failures the first one is thrown; a settle's is on record with its segments.
    await settling.end().catch(() => undefined);
  }
}

interface Run extends LoadDeps {
  client: pg.PoolClient;
  stream: string;
  source: Source;
  settling: Settling;
}

async function loadSegments(run: Run): Promise<StreamRun> {
  const { source, segmentRowsMax } = run;
  const bounds = {
    msMin: run.groupMsMin ?? 0,
    bytesMax: run.groupBytesMax ?? groupBytesMaxDefault,
  };
  let group: Group | undefined;
  let lookAtMs = 0;
  let isBusy = false;
  let isMore = true;
  let segments = 0;
  let rows = 0;
  while (run.goesOn?.(segments, isMore) ?? true) {
    const nowMs = performance.now();
    const looks = group === undefined || nowMs >= lookAtMs;
    const sealed = looks ? await source.next() : undefined;
    if (sealed !== undefined) {
      const { segment } = sealed;
      group ??= openGroup(segment.stream, segment.kind);
      isBusy = segment.rows >= segmentRowsMax * busyShare;
      if (isBusy) source.readAhead();
      await insertInto(run, group, sealed);
      segments += 1;
      rows += segment.rows;
      // After a large one there is more at once, and after one that an earlier run left, which has
      // its entries still to be read.
      isMore = segment.rows * 2 > segmentRowsMax || sealed.entries === undefined;
      if (!isMore) lookAtMs = nowMs + lookEveryMs[isBusy ? 'busy' : 'quiet'];
      if (groupDueInMs(group, { drained: !isBusy, ...bounds }) > 0) continue;
    } else if (group === undefined) {
      if (segments === 0) await trimSettled(run.client, run.redis, run.stream);
      return { outcome: 'drained', segments, rows };
    } else {
      if (looks) {
        isBusy = false;
        lookAtMs = nowMs + lookEveryMs.quiet;
      }
      const dueInMs = groupDueInMs(group, { drained: !isBusy, ...bounds });
      if (dueInMs > 0) {
        const pauseMs = Math.min(dueInMs, lookAtMs - performance.now());
        await new Promise((resume) => setTimeout(resume, Math.max(1, pauseMs)));
        continue;
      }
    }
    await settleBeside(run, group);
    group = undefined;
  }
  if (group !== undefined) await settleBeside(run, group);
  return { outcome: 'paused', segments, rows };
}

/** Waits, with the stream's lock kept, for the group before, and begins with this one. */
function settleBeside(run: Run, group: Group): Promise<void> {
  return keepingSession(run, () => run.settling.begin(group));
}

/**
 * Inserts a segment and adds its rows to the group's sums. Where that fails, the segments before it
 * are settled all the same, so that one that keeps failing holds up what comes after it and no more.
 */
async function insertInto(run: Run, group: Group, { segment, entries }: Sealed): Promise<void> {
  let inserted: Inserted;
  try {
    const { block } = entries ?? (await readLeft(run, segment));
    inserted = await insert(run, segment, block);
  } catch (cause) {
    await recordError(run.client, [segment.id], cause);
    if (group.segments.length > 0) await settleBeside(run, group).catch(() => undefined);
    throw cause;
  }
  for (const payload of inserted.payloads) group.sums.add(payload);
  for (const memory of inserted.spare) run.buffers.give(memory);
  group.segments.push(segment);
}

/**
 * The entries of a segment that an earlier run left. That run may have lost its lock while its settle
 * goes on: then the entries are gone because they are settled, and the next run starts behind them.
 */
async function readLeft(run: Run, segment: Segment): Promise<Entries> {
  try {
    return await readSealed(run.redis, segment, run.buffers);
  } catch (cause) {
    const { rowCount } = await run.client.query(
      `SELECT FROM segments WHERE id = $1 AND state = 'sealed'`,
      [segment.id],
    );
    if (rowCount !== 0) throw cause;
    throw new CoreError('STORE_UNAVAILABLE', `Another run has settled segment ${segment.id}`, {
      cause,
    });
  }
}

/** Outbound rows end in Postgres: nothing is inserted. */
async function insert(run: Run, segment: Segment, block: Buffer): Promise<Inserted> {
  const { kind } = segment;
  if (kind === 'outbound') {
    const payload: OutboundPayload = { format: 'outbound', rows: segment.rows, bytes: block };
    return { payloads: [payload], spare: [block] };
  }
  await run.failpoint?.('insert:before');
  const inserted = await insertSegment(run, segment, kind, block);
  await run.failpoint?.('insert:after');
  return inserted;
}
