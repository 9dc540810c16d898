import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import type { BufferPool } from '../buffer-pool.ts';
import type { Failpoint } from '../failpoints.ts';
import { type TrimRedis, trimSettled } from '../spool/trim.ts';
import type { ClickHouseClient } from '../stores/clickhouse.ts';
import { type Hold, holdStream, keepHold } from './hold.ts';
import { type Inserted, insertSegment } from './insert.ts';
import { createPace, type Look, type Pace } from './pace.ts';
import {
  createSealer,
  noteFailure,
  type Overtaken,
  overtaken,
  readSealed,
  type Sealed,
  type Sealer,
} from './seal.ts';
import {
  addToBatch,
  type Batch,
  createSettler,
  openBatch,
  type Settled,
  type Settler,
} from './settle.ts';

export interface LoadDeps {
  pool: pg.Pool;
  redis: TrimRedis;
  clickhouse: ClickHouseClient;
  /** Memory for rows as they are read and as they are sent; a worker's streams share it. */
  buffers: BufferPool;
  segmentRowsMax: number;
  /** The least time that a batch gathers segments; see pace.ts. Absent: 0. */
  groupMsMin?: number | undefined;
  /** Bytes of stream entries that a batch may hold back in Redis; see pace.ts. */
  groupBytesMax?: number | undefined;
  /** From this attempt on, rows that ClickHouse refuses for their data are set aside; see insert.ts. */
  poisonAttempts?: number | undefined;
  /**
   * Whether the run goes on; asked before each look at the stream. `segments` is how many the run has
   * loaded. `isMore` says that the next look is likely to find one at once. If the answer is false,
   * the run settles what it has and ends.
   */
  goesOn?: ((segments: number, isMore: boolean) => boolean) | undefined;
  /** Awaited between the inserts of a segment's months, with how long the last one took. */
  pauseBetweenMonths?: ((insertMs: number) => Promise<void>) | undefined;
  failpoint?: Failpoint | undefined;
  /** See hold.ts; shorter in tests. */
  silentMsMax?: number | undefined;
  /** See poison/bisect.ts; lower in tests. */
  refusedRowsMax?: number | undefined;
}

/** How a run ended. */
export type StreamRun =
  | { outcome: 'drained'; segments: number; rows: number }
  /** There may be more; the next run goes on. */
  | { outcome: 'paused'; segments: number; rows: number }
  /** Another worker holds the stream. */
  | { outcome: 'locked' }
  | Overtaken;

const groupBytesMaxDefault = 268_435_456;

/**
 * One run on a stream: holds it, loads what it has, and waits for the last batch to be settled. Once
 * this has ended, even by an error, the run writes nothing any more.
 */
export function runStream(deps: LoadDeps, stream: string): Promise<StreamRun> {
  return holdStream(deps, stream, async (hold): Promise<StreamRun> => {
    const settler = createSettler(deps);
    try {
      const run = await loadSegments(createRun(deps, stream, hold, settler));
      const last = await keepHold(hold, settler.end);
      return last.outcome === 'overtaken' ? last : run;
    } finally {
      // This throws the first of two failures. A settle that failed has noted that with its segments.
      await settler.end().catch(() => undefined);
    }
  });
}

interface Run extends LoadDeps, Hold {
  stream: string;
  pace: Pace;
  sealer: Sealer;
  settler: Settler;
}

function createRun(deps: LoadDeps, stream: string, hold: Hold, settler: Settler): Run {
  const { segmentRowsMax, groupMsMin = 0, groupBytesMax = groupBytesMaxDefault } = deps;
  const pace = createPace({ segmentRowsMax, groupMsMin, groupBytesMax });
  const sealer = createSealer({ ...deps, ...hold }, { stream, rowsMax: segmentRowsMax });
  return { ...deps, ...hold, stream, pace, sealer, settler };
}

/**
 * The loop of a run. It waits until there is something to do (pace.ts), and loads the next segment
 * into the batch that gathers. Once the batch is due, it hands the batch over to be settled and
 * trimmed. While one segment is inserted, the next one is read, and while one batch is settled the
 * next one gathers.
 */
async function loadSegments(run: Run): Promise<StreamRun> {
  const { pace } = run;
  let segments = 0;
  let rows = 0;
  let batch: Batch | undefined;
  while (run.goesOn?.(segments, pace.isMore) ?? true) {
    const nowMs = performance.now();
    const waitMs = pace.waitMs(batch, nowMs);
    if (waitMs > 0) {
      await delay(waitMs);
      continue;
    }
    if (pace.isTimeToLook(batch, nowMs)) {
      const loaded = await loadNextSegment(run, batch, nowMs);
      if (loaded.outcome === 'overtaken') return loaded;
      if (loaded.outcome === 'loaded') {
        batch = loaded.batch;
        segments += 1;
        rows += loaded.rows;
      } else if (batch === undefined) {
        if (segments === 0) await trimSettled(run.client, run.redis, run.stream);
        return { outcome: 'drained', segments, rows };
      }
    }
    if (batch !== undefined && pace.dueInMs(batch, performance.now()) <= 0) {
      const before = await handOver(run, batch);
      if (before.outcome === 'overtaken') return before;
      batch = undefined;
    }
  }
  if (batch !== undefined) {
    const before = await handOver(run, batch);
    if (before.outcome === 'overtaken') return before;
  }
  return { outcome: 'paused', segments, rows };
}

type Loaded =
  | { outcome: 'loaded'; batch: Batch; rows: number }
  /** The stream has nothing new. */
  | { outcome: 'nothing' }
  | Overtaken;

/**
 * The steps of one segment, a line each: seal, read, insert, add to the batch. Settle and trim follow with
 * the batch.
 */
async function loadNextSegment(
  run: Run,
  gathered: Batch | undefined,
  nowMs: number,
): Promise<Loaded> {
  const { pace, sealer, buffers } = run;
  const sealed = await sealer.next();
  pace.noteLook(sealed && lookOf(sealed), nowMs);
  if (sealed === undefined) return { outcome: 'nothing' };
  if (pace.isBusy) sealer.readAhead();
  const batch = gathered ?? openBatch(sealed.segment);
  const inserted = await readAndInsert(run, sealed, batch);
  if (inserted.outcome === 'overtaken') return inserted;
  addToBatch(batch, sealed.segment, inserted.payloads);
  for (const memory of inserted.spare) buffers.give(memory);
  return { outcome: 'loaded', batch, rows: sealed.segment.rows };
}

function lookOf({ segment, entries }: Sealed): Look {
  return { rows: segment.rows, isLeftOver: entries === undefined };
}

/**
 * Inserts a segment. If an earlier run has sealed it, this reads its stream entries first. If the
 * segment fails, the segments before it still settle: one that keeps failing holds up only what comes
 * after it.
 */
async function readAndInsert(
  run: Run,
  { segment, entries }: Sealed,
  batch: Batch,
): Promise<Inserted> {
  let inserted: Inserted;
  try {
    const { blocks } = entries ?? (await readSealed(run, segment)) ?? {};
    inserted =
      blocks === undefined ? overtaken(segment) : await insertSegment(run, segment, blocks);
  } catch (cause) {
    await noteFailure(run.client, [segment.id], cause);
    // This throws `cause`. If the settle fails too, it has noted that with its segments.
    await handOver(run, batch).catch(() => undefined);
    throw cause;
  }
  if (inserted.outcome === 'overtaken') await handOver(run, batch);
  return inserted;
}

/**
 * Keeps the stream and waits until the batch before is settled. Then it begins to settle this one.
 * @returns how the batch before ended. If that was overtaken, this one does not begin.
 */
async function handOver(run: Run, batch: Batch): Promise<Settled> {
  if (batch.segmentIds.length === 0) return { outcome: 'settled' };
  return keepHold(run, () => run.settler.begin(batch));
}
