import type { Redis } from 'ioredis';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import type { Failpoint } from '../failpoints.ts';
import type { ClickHouseClient } from '../stores/clickhouse.ts';
import { readEntries } from './entries.ts';
import { insertSegment } from './insert.ts';
import { oldestSealed, type Sealed, sealNext } from './seal.ts';
import { boundSilence, silentMsMax } from './session.ts';
import { settleSegment } from './settle.ts';
import { type TrimRedis, trimSettled } from './trim.ts';

export interface LoadDeps {
  pool: pg.Pool;
  redis: TrimRedis;
  clickhouse: ClickHouseClient;
  segmentRowsMax: number;
  /** From this attempt on a segment that ClickHouse refuses for its data is bisected; see insert.ts. */
  poisonAttempts?: number | undefined;
  failpoint?: Failpoint | undefined;
  /** See session.ts; shorter in tests. */
  silentMsMax?: number | undefined;
}

export type StreamRun =
  | { outcome: 'drained'; segments: number; rows: number }
  /** There may be more; the next run goes on. */
  | { outcome: 'paused'; segments: number; rows: number }
  /** Another worker holds the stream. */
  | { outcome: 'locked' };

/** A run gives its place up after this many segments, so that other streams get their turn. */
const segmentsMax = 64;

/**
 * Loads what a stream holds, segment by segment: seal, insert, settle, trim. Everything happens on
 * one Postgres connection that holds the stream's advisory lock; when that connection dies, the
 * lock and this run's ability to seal or settle die with it. A run that falls silent loses it.
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
  let rows = 0;
  for (let segments = 0; segments < segmentsMax; segments += 1) {
    const sealed =
      (await oldestSealed(client, stream)) ??
      (await sealNext(client, deps.redis, stream, deps.segmentRowsMax, deps.failpoint));
    if (sealed === undefined) {
      if (segments === 0) await trimSettled(client, deps.redis, stream);
      return { outcome: 'drained', segments, rows };
    }
    await loadSegment(deps, client, sealed);
    rows += sealed.segment.rows;
  }
  return { outcome: 'paused', segments: segmentsMax, rows };
}

async function loadSegment(
  deps: LoadDeps,
  client: pg.PoolClient,
  { segment, entries }: Sealed,
): Promise<void> {
  try {
    const { block } = entries ?? (await readSealed(deps.redis, segment));
    const { kind } = segment;
    let counted = block;
    if (kind !== 'outbound') {
      await deps.failpoint?.('insert:before');
      counted = await insertSegment({ ...deps, client }, segment, kind, block);
      await deps.failpoint?.('insert:after');
    }
    await deps.failpoint?.('settle:before');
    await settleSegment(client, segment, counted, deps.failpoint);
    await deps.failpoint?.('settle:after');
  } catch (cause) {
    await recordError(client, segment.id, cause);
    throw cause;
  }
  await deps.failpoint?.('trim:before');
  await trimSettled(client, deps.redis, segment.stream);
  await deps.failpoint?.('trim:after');
}

/** Reads a sealed range again after a crash or failure. It must be what was sealed, to the row. */
async function readSealed(redis: Redis, segment: Sealed['segment']): Promise<{ block: Buffer }> {
  const entries = await readEntries(redis, {
    stream: segment.stream,
    start: segment.firstId,
    end: segment.lastId,
    rowsMax: segment.rows,
  });
  if (entries?.lastId !== segment.lastId || entries.rows !== segment.rows) {
    throw new CoreError(
      'SEGMENT_ROWS_LOST',
      `Segment ${segment.id} has ${segment.rows} rows, Redis holds ${entries?.rows ?? 0} of them`,
    );
  }
  return entries;
}

/** For the operator (`core status`). The failure itself matters more than that this was written. */
async function recordError(client: pg.PoolClient, segmentId: number, cause: unknown) {
  const message = cause instanceof Error ? cause.message : String(cause);
  await client
    .query('UPDATE segments SET last_error = $2 WHERE id = $1', [
      segmentId,
      message.slice(0, 1_000),
    ])
    .catch(() => undefined);
}
