import type pg from 'pg';
import type { BufferPool } from '../buffer-pool.ts';
import { CoreError } from '../errors.ts';
import type { Failpoint } from '../failpoints.ts';
import { sessionColumns, usageColumns } from '../ingest/pack.ts';
import { type ClickHouseClient, insertRowBinary } from '../stores/clickhouse.ts';
import { dropTrialTable, findRefusedRows, type RefusedRow } from './bisect.ts';
import { type Partition, partitionRows } from './partition.ts';
import { dataRefusal } from './refusal.ts';
import { keptRows, readRejected, rejectRows, withoutRejected } from './reject.ts';
import type { Segment } from './seal.ts';
import { keepingSession } from './session.ts';
import { sortUsageRows } from './sort-rows.ts';

interface InsertDeps {
  client: pg.PoolClient;
  clickhouse: ClickHouseClient;
  /** For the sorted copy of rows. */
  buffers: BufferPool;
  /**
   * From this attempt on, a month that ClickHouse refuses for its data is bisected. Absent: never.
   */
  poisonAttempts?: number | undefined;
  failpoint?: Failpoint | undefined;
  silentMsMax?: number | undefined;
  refusedRowsMax?: number | undefined;
}

const tables = {
  usage: { table: 'usage', columns: usageColumns, time: 'recorded_at' },
  session: { table: 'session_events', columns: sessionColumns, time: 'occurred_at' },
} as const;

/** What is in ClickHouse of a segment. */
export interface Inserted {
  /** The rows, for the counters: all but the rejected ones. */
  blocks: Buffer[];
  /**
   * Memory of the pool that is free once the rows have been counted. None where a request was refused
   * or failed: something of it may still be about to be sent.
   */
  spare: Buffer[];
}

/** Tokens tried for one partition; see insertMissing. */
const tokensMax = 4;

/**
 * Puts a segment's rows into ClickHouse, each month one INSERT.
 *
 * The attempt is counted and committed first. On any attempt but the first, rows of this segment
 * may be there already, wholly or by some months: they are counted, and only what is missing is
 * inserted. See ARCHITECTURE.md, "What a crash does".
 *
 * A month that ClickHouse goes on refusing for its data is bisected: the rows at fault are committed
 * to rejected_rows, then the rest is inserted. Rows rejected once are left out by every attempt.
 * @throws CoreError SEGMENT_ROWS_LOST where a month holds some but not all of its rows.
 */
export async function insertSegment(
  deps: InsertDeps,
  segment: Segment,
  kind: 'usage' | 'session',
  block: Buffer,
): Promise<Inserted> {
  await deps.client.query('UPDATE segments SET attempts = attempts + 1 WHERE id = $1', [
    segment.id,
  ]);
  const repeated = segment.attempts > 0 ? await readEarlier(deps, segment, kind) : undefined;
  const inserted: Inserted = { blocks: [], spare: [block] };
  for (const whole of partitionRows(kind, block, segment.id)) {
    const rejected = repeated?.rejected.get(whole.yyyymm) ?? new Set<number>();
    const partition = withoutRejected(kind, whole, rejected);
    if (repeated !== undefined && isPresent(partition, repeated.present, segment)) {
      inserted.blocks.push(partition.bytes);
    } else {
      await insertOrReject(deps, segment, kind, { whole, partition, rejected }, inserted);
    }
  }
  return inserted;
}

/** What earlier attempts left: rows in ClickHouse, and rows decided to be left out. */
async function readEarlier(deps: InsertDeps, segment: Segment, kind: 'usage' | 'session') {
  if (bisects(deps, segment)) {
    // An attempt that was killed while it bisected leaves its trial table.
    await dropTrialTable(deps.clickhouse, { ...tables[kind], segmentId: segment.id });
  }
  return {
    rejected: await readRejected(deps.client, segment.id),
    present: await keepingSession(deps, () => countRows(deps.clickhouse, kind, segment.id)),
  };
}

function bisects(deps: InsertDeps, segment: Segment): boolean {
  return deps.poisonAttempts !== undefined && segment.attempts + 1 >= deps.poisonAttempts;
}

/**
 * Inserts what is missing of a month, and adds it to `inserted`. Where ClickHouse refuses it for its
 * data, and has done so often enough, the rows at fault are found and committed as rejected first.
 * Which rows those are is decided for good before one row is inserted: the count that says whether the
 * month is there would otherwise be ambiguous after a crash.
 */
async function insertOrReject(
  deps: InsertDeps,
  segment: Segment,
  kind: 'usage' | 'session',
  month: { whole: Partition; partition: Partition; rejected: ReadonlySet<number> },
  inserted: Inserted,
): Promise<void> {
  const { clickhouse } = deps;
  const { whole, partition, rejected } = month;
  const ordered = inTableOrder(kind, partition, (bytes) => {
    const memory = deps.buffers.take(bytes);
    inserted.spare.push(memory);
    return memory;
  });
  try {
    await keepingSession(deps, () =>
      segment.attempts === 0
        ? insertPartition(deps, kind, segment.id, ordered, 0)
        : insertMissing(deps, kind, segment, ordered),
    );
    inserted.blocks.push(ordered.bytes);
  } catch (thrown) {
    inserted.spare = [];
    if (dataRefusal(thrown) === undefined || !bisects(deps, segment)) throw thrown;
    const { refusedRowsMax } = deps;
    const target = { ...tables[kind], segmentId: segment.id, refusedRowsMax };
    const refused = await keepingSession(deps, () =>
      findRefusedRows(clickhouse, target, keptRows(kind, whole, rejected)),
    );
    // No row is at fault alone, so it is not the rows: the refusal stands for the operator to see.
    if (refused.length === 0) throw thrown;
    inserted.blocks.push(await insertRest(deps, segment, kind, month, refused));
  }
}

/** Sets the refused rows aside, inserts the other ones, and returns what is in the table. */
async function insertRest(
  deps: InsertDeps,
  segment: Segment,
  kind: 'usage' | 'session',
  month: { whole: Partition; partition: Partition; rejected: ReadonlySet<number> },
  refused: RefusedRow[],
): Promise<Buffer> {
  const { client, clickhouse } = deps;
  const { whole, partition, rejected } = month;
  // Refused and there all the same: the table took it, something behind the table did not.
  const present = await countRows(clickhouse, kind, segment.id);
  if (isPresent(partition, present, segment)) return partition.bytes;
  await deps.failpoint?.('reject:before');
  await rejectRows(client, segment, kind, whole.yyyymm, refused);
  await deps.failpoint?.('reject:after');
  const positions = new Set([...rejected, ...refused.map((row) => row.position)]);
  const rest = inTableOrder(kind, withoutRejected(kind, whole, positions), Buffer.allocUnsafeSlow);
  if (rest.rows > 0) await keepingSession(deps, () => insertMissing(deps, kind, segment, rest));
  return rest.bytes;
}

/**
 * Which rows a token stands for does not change with their order: only what is sent is sorted, while
 * places of rejected rows are those in the stream.
 */
function inTableOrder(
  kind: 'usage' | 'session',
  partition: Partition,
  allocate: (bytes: number) => Buffer,
): Partition {
  if (kind === 'session') return partition;
  return { ...partition, bytes: sortUsageRows(partition.bytes, allocate) };
}

/**
 * Inserts a partition that was counted as missing. Two things may be true of its token: an insert
 * with it is still running under a worker thought dead, and then the token makes one of the two a
 * no-op; or the token was logged and the rows were lost with a crash of ClickHouse, and then the
 * insert is answered as done and nothing is there. So the rows are counted after it, and only where
 * they are still missing the next token is tried. The tokens are the same for every worker.
 */
async function insertMissing(
  deps: InsertDeps,
  kind: 'usage' | 'session',
  segment: Segment,
  partition: Partition,
): Promise<void> {
  for (let attempt = 0; attempt < tokensMax; attempt += 1) {
    await insertPartition(deps, kind, segment.id, partition, attempt);
    const present = await countRows(deps.clickhouse, kind, segment.id);
    if (isPresent(partition, present, segment)) return;
  }
  throw new CoreError(
    'STORE_UNAVAILABLE',
    `ClickHouse took partition ${partition.yyyymm} of segment ${segment.id} but does not show it`,
  );
}

/**
 * Segment ids are never given twice, not even by a Postgres that was reset or restored
 * (migrate.ts), so the token is the segment's alone.
 */
async function insertPartition(
  { clickhouse, failpoint }: InsertDeps,
  kind: 'usage' | 'session',
  segmentId: number,
  partition: Partition,
  attempt: number,
): Promise<void> {
  const { table, columns } = tables[kind];
  await failpoint?.('insert:send');
  await insertRowBinary(clickhouse, {
    table,
    columns,
    token: `segment-${segmentId}-${partition.yyyymm}-${attempt}`,
    rows: partition.bytes,
  });
}

function isPresent(
  partition: Partition,
  present: ReadonlyMap<number, number>,
  segment: Segment,
): boolean {
  const rows = present.get(partition.yyyymm) ?? 0;
  if (rows === partition.rows) return true;
  if (rows === 0) return false;
  throw new CoreError(
    'SEGMENT_ROWS_LOST',
    `Segment ${segment.id} has ${rows} of ${partition.rows} rows in partition ${partition.yyyymm}`,
  );
}

async function countRows(
  clickhouse: ClickHouseClient,
  kind: 'usage' | 'session',
  segmentId: number,
): Promise<Map<number, number>> {
  const { table, time } = tables[kind];
  const result = await clickhouse.query({
    query: `SELECT toYYYYMM(${time}) AS yyyymm, count() AS rows FROM ${table}
      WHERE segment = {segment:UInt64} GROUP BY yyyymm`,
    query_params: { segment: segmentId },
    format: 'JSONEachRow',
  });
  const counts = await result.json<{ yyyymm: number; rows: number }>();
  return new Map(counts.map((count) => [count.yyyymm, count.rows]));
}
