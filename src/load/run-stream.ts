import type pg from 'pg';
import type { Failpoint } from '../failpoints.ts';
import type { ClickHouseClient } from '../stores/clickhouse.ts';
import { type Group, groupDueInMs, openGroup } from './group.ts';
import { insertSegment } from './insert.ts';
import { oldestSealed, readSealed, type Sealed, type Segment, sealNext } from './seal.ts';
import { boundSilence, silentMsMax } from './session.ts';
import { settleGroup } from './settle.ts';
import { type TrimRedis, trimSettled } from './trim.ts';

export interface LoadDeps {
  pool: pg.Pool;
  redis: TrimRedis;
  clickhouse: ClickHouseClient;
  segmentRowsMax: number;
  /** Least time that a group of segments is gathered; see group.ts. */
  groupMsMin?: number | undefined;
  /** Bytes of packed rows that a group of segments may hold back in Redis; see group.ts. */
  groupBytesMax?: number | undefined;
  /** From this attempt on a segment that ClickHouse refuses for its data is bisected; see insert.ts. */
  poisonAttempts?: number | undefined;
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

/** A run gives its place up after this many segments, so that other streams get their turn. */
const segmentsMax = 64;
const groupBytesMaxDefault = 268_435_456;
/**
 * How often a group that waits for its time looks for new entries. Each look may make a segment, and
 * an insert costs ClickHouse 60 to 80 ms of CPU, later merges included, however small it is.
 */
const lookEveryMs = 1_000;
/** A segment of at least this share of the largest one says that much is coming in. */
const busyShare = 0.125;

/**
 * Loads what a stream holds: seals and inserts segment after segment, and settles and trims them in
 * groups. Everything happens on one Postgres connection that holds the stream's advisory lock; when
 * that connection dies, the lock and this run's ability to seal or settle die with it. A run that
 * falls silent loses it.
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
    const run = await loadSegments(deps, client, stream);
    await boundSilence(client, 0);
    await client.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [stream]);
    destroy = false;
    return run;
  } finally {
    client.release(destroy);
  }
}

async function loadSegments(
  deps: LoadDeps,
  client: pg.PoolClient,
  stream: string,
): Promise<StreamRun> {
  const bounds = {
    msMin: deps.groupMsMin ?? 0,
    bytesMax: deps.groupBytesMax ?? groupBytesMaxDefault,
  };
  const next = createSource(deps, client, stream);
  let group: Group | undefined;
  let lookAtMs = 0;
  let isBusy = false;
  let segments = 0;
  let rows = 0;
  while (segments < segmentsMax) {
    const looks = group === undefined || performance.now() >= lookAtMs;
    const sealed = looks ? await next() : undefined;
    if (sealed !== undefined) {
      const { segment } = sealed;
      group ??= openGroup(segment.stream, segment.kind);
      await insertInto(deps, client, group, sealed);
      segments += 1;
      rows += segment.rows;
      isBusy = segment.rows >= deps.segmentRowsMax * busyShare;
      // After a large one there is more at once, and after one that an earlier run left, which has
      // its entries still to be read.
      const isMore = segment.rows * 2 > deps.segmentRowsMax || sealed.entries === undefined;
      if (!isMore) lookAtMs = performance.now() + lookEveryMs;
      if (groupDueInMs(group, { drained: !isBusy, ...bounds }) > 0) continue;
    } else if (group === undefined) {
      if (segments === 0) await trimSettled(client, deps.redis, stream);
      return { outcome: 'drained', segments, rows };
    } else {
      if (looks) {
        lookAtMs = performance.now() + lookEveryMs;
        isBusy = false;
      }
      const dueInMs = groupDueInMs(group, { drained: !isBusy, ...bounds });
      if (dueInMs > 0) {
        const pauseMs = Math.min(dueInMs, lookAtMs - performance.now());
        await new Promise((resume) => setTimeout(resume, Math.max(1, pauseMs)));
        continue;
      }
    }
    await settle(deps, client, group);
    group = undefined;
  }
  if (group !== undefined) await settle(deps, client, group);
  return { outcome: 'paused', segments, rows };
}

/**
 * The stream's segments in their order: first those that an earlier run left sealed, inserted or
 * not, then new ones.
 */
function createSource(
  deps: LoadDeps,
  client: pg.PoolClient,
  stream: string,
): () => Promise<Sealed | undefined> {
  let afterSeq = 0;
  let leftOver = true;
  return async () => {
    if (leftOver) {
      const sealed = await oldestSealed(client, stream, afterSeq);
      if (sealed !== undefined) {
        afterSeq = sealed.segment.seq;
        return sealed;
      }
      // Nobody else seals while this run has the lock.
      leftOver = false;
    }
    return sealNext(client, deps.redis, stream, deps.segmentRowsMax, deps.failpoint);
  };
}

/**
 * Inserts a segment and adds its rows to the group's sums. Where that fails, the segments before it
 * are settled all the same, so that one that keeps failing holds up what comes after it and no more.
 */
async function insertInto(
  deps: LoadDeps,
  client: pg.PoolClient,
  group: Group,
  { segment, entries }: Sealed,
): Promise<void> {
  let counted: Buffer;
  try {
    const { block } = entries ?? (await readSealed(deps.redis, segment));
    counted = await insert(deps, client, segment, block);
  } catch (cause) {
    await recordError(client, [segment.id], cause);
    // What is wrong with the settle is on record, too; the segment's failure came first.
    if (group.segments.length > 0) await settle(deps, client, group).catch(() => undefined);
    throw cause;
  }
  group.sums.add(counted);
  group.segments.push(segment);
}

/** Returns the rows that count. Outbound rows end in Postgres: nothing is inserted. */
async function insert(
  deps: LoadDeps,
  client: pg.PoolClient,
  segment: Segment,
  block: Buffer,
): Promise<Buffer> {
  const { kind } = segment;
  if (kind === 'outbound') return block;
  await deps.failpoint?.('insert:before');
  const counted = await insertSegment({ ...deps, client }, segment, kind, block);
  await deps.failpoint?.('insert:after');
  return counted;
}

async function settle(deps: LoadDeps, client: pg.PoolClient, group: Group): Promise<void> {
  const { stream, sums } = group;
  const segmentIds = group.segments.map((segment) => segment.id);
  try {
    await deps.failpoint?.('settle:before');
    await settleGroup(client, { stream, segmentIds, sums }, deps.failpoint);
    await deps.failpoint?.('settle:after');
  } catch (cause) {
    await recordError(client, segmentIds, cause);
    throw cause;
  }
  await deps.failpoint?.('trim:before');
  await trimSettled(client, deps.redis, stream);
  await deps.failpoint?.('trim:after');
}

/** For the operator (`core status`). The failure itself matters more than that this was written. */
async function recordError(client: pg.PoolClient, segmentIds: readonly number[], cause: unknown) {
  const message = cause instanceof Error ? cause.message : String(cause);
  await client
    .query(
      `UPDATE segments SET last_error = $2 WHERE id = ANY ($1::bigint[]) AND state = 'sealed'`,
      [segmentIds, message.slice(0, 1_000)],
    )
    .catch(() => undefined);
}
