import type pg from 'pg';
import type { BufferPool } from '../buffer-pool.ts';
import { CoreError } from '../errors.ts';
import type { Failpoint } from '../failpoints.ts';
import type { SegmentMonth } from '../rows/month.ts';
import { sessionColumns, usageColumns } from '../rows/pack.ts';
import {
  type OutboundPayload,
  openSegment,
  type Payload,
  type SegmentRows,
} from '../rows/segment-rows.ts';
import { type ClickHouseClient, writePart } from '../stores/clickhouse.ts';
import { dropTrialTable, findRefusedRows, type RefusedRow } from './poison/bisect.ts';
import { dataRefusal } from './poison/refusal.ts';
import { readRejected, rejectRows } from './poison/reject.ts';
import type { Segment } from './seal.ts';
import { keepingSession } from './session.ts';

interface InsertDeps {
  client: pg.PoolClient;
  clickhouse: ClickHouseClient;
  /** For the rows as they are sent. */
  buffers: BufferPool;
  /**
   * From this attempt on, a month that ClickHouse refuses for its data is bisected. Absent: never.
   */
  poisonAttempts?: number | undefined;
  pace?: ((insertMs: number) => Promise<void>) | undefined;
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
  payloads: (Payload | OutboundPayload)[];
  /**
   * Memory of the pool that is free once the rows have been counted. None where a request was refused
   * or failed: something of it may still be about to be sent.
   */
  spare: Buffer[];
}

/** Tokens tried for one partition; see insertMissing. */
const tokensMax = 4;
const none: ReadonlySet<number> = new Set();

/**
 * Puts a segment's rows into ClickHouse, each month one INSERT. `block` has them as the spool does.
 *
 * The attempt is counted and committed first. On any attempt but the first, rows of this segment
 * may be there already, wholly or by some months: they are counted, and only what is missing is
 * inserted. See ARCHITECTURE.md, "What a crash does".
 *
 * A month that ClickHouse goes on refusing for its data is bisected: the rows at fault are committed
 * to rejected_rows, then the rest is inserted. Rows rejected once are left out by every attempt.
 * @throws CoreError SEGMENT_ROWS_LOST where a month holds some but not all of its rows, or the block is
 * not what was sealed.
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
  const inserted: Inserted = { payloads: [], spare: [block] };
  const rows = openSegment(segment, kind, block, deps.buffers);
  for (const month of rows.months) {
    const rejected = repeated?.rejected.get(month.yyyymm) ?? none;
    const payload = rows.payload(month, rejected);
    if (payload.format === 'Native') inserted.spare.push(payload.bytes);
    if (repeated !== undefined && isPresent(payload, month, repeated.present, segment)) {
      inserted.payloads.push(payload);
      continue;
    }
    const startMs = performance.now();
    await insertOrReject(deps, segment, kind, { rows, month, payload, rejected }, inserted);
    if (month !== rows.months.at(-1)) await deps.pace?.(performance.now() - startMs);
  }
  return inserted;
}

/** A month of a segment, and what of it is to be inserted. */
interface Part {
  rows: SegmentRows;
  month: SegmentMonth;
  payload: Payload;
  rejected: ReadonlySet<number>;
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
  part: Part,
  inserted: Inserted,
): Promise<void> {
  const { clickhouse, refusedRowsMax } = deps;
  const { rows, month, payload, rejected } = part;
  try {
    await keepingSession(deps, () =>
      segment.attempts === 0
        ? insertPayload(deps, kind, segment.id, month, payload, 0)
        : insertMissing(deps, kind, segment, month, payload),
    );
    inserted.payloads.push(payload);
  } catch (thrown) {
    inserted.spare = [];
    if (dataRefusal(thrown) === undefined || !bisects(deps, segment)) throw thrown;
    const target = { ...tables[kind], segmentId: segment.id, refusedRowsMax };
    const refused = await keepingSession(deps, () =>
      findRefusedRows(clickhouse, target, rows.singleRows(month, rejected)),
    );
    // No row is at fault alone, so it is not the rows: the refusal stands for the operator to see.
    if (refused.length === 0) throw thrown;
    inserted.payloads.push(await insertRest(deps, segment, kind, part, refused));
  }
}

/** Sets the refused rows aside, inserts the other ones, and returns what is in the table. */
async function insertRest(
  deps: InsertDeps,
  segment: Segment,
  kind: 'usage' | 'session',
  { rows, month, payload, rejected }: Part,
  refused: RefusedRow[],
): Promise<Payload> {
  const { client, clickhouse } = deps;
  // Refused and there all the same: the table took it, something behind the table did not.
  const present = await countRows(clickhouse, kind, segment.id);
  if (isPresent(payload, month, present, segment)) return payload;
  await deps.failpoint?.('reject:before');
  await rejectRows(client, segment, kind, month.yyyymm, refused);
  await deps.failpoint?.('reject:after');
  const positions = new Set([...rejected, ...refused.map((row) => row.position)]);
  const rest = rows.payload(month, positions);
  if (rest.rows > 0) {
    await keepingSession(deps, () => insertMissing(deps, kind, segment, month, rest));
  }
  return rest;
}

/**
 * Inserts a month that was counted as missing. Two things may be true of its token: an insert
 * with it is still running under a worker thought dead, and then the token makes one of the two a
 * no-op; or the token was logged and the rows were lost with a crash of ClickHouse, and then the
 * insert is answered as done and nothing is there. So the rows are counted after it, and only where
 * they are still missing the next token is tried. The tokens are the same for every worker.
 */
async function insertMissing(
  deps: InsertDeps,
  kind: 'usage' | 'session',
  segment: Segment,
  month: SegmentMonth,
  payload: Payload,
): Promise<void> {
  for (let attempt = 0; attempt < tokensMax; attempt += 1) {
    await insertPayload(deps, kind, segment.id, month, payload, attempt);
    const present = await countRows(deps.clickhouse, kind, segment.id);
    if (isPresent(payload, month, present, segment)) return;
  }
  throw new CoreError(
    'STORE_UNAVAILABLE',
    `ClickHouse took partition ${month.yyyymm} of segment ${segment.id} but does not show it`,
  );
}

/**
 * Segment ids are never given twice, not even by a Postgres that was reset or restored
 * (migrate.ts), so the token is the segment's alone.
 */
async function insertPayload(
  { clickhouse, failpoint }: InsertDeps,
  kind: 'usage' | 'session',
  segmentId: number,
  month: SegmentMonth,
  payload: Payload,
  attempt: number,
): Promise<void> {
  const { table, columns } = tables[kind];
  await failpoint?.('insert:send');
  await writePart(clickhouse, {
    table,
    columns,
    token: `segment-${segmentId}-${month.yyyymm}-${attempt}`,
    format: payload.format,
    bytes: payload.bytes,
  });
}

function isPresent(
  payload: Payload,
  { yyyymm }: SegmentMonth,
  present: ReadonlyMap<number, number>,
  segment: Segment,
): boolean {
  const rows = present.get(yyyymm) ?? 0;
  if (rows === payload.rows) return true;
  if (rows === 0) return false;
  throw new CoreError(
    'SEGMENT_ROWS_LOST',
    `Segment ${segment.id} has ${rows} of ${payload.rows} rows in partition ${yyyymm}`,
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
