import type { BufferPool } from '../buffer-pool.ts';
import { CoreError } from '../errors.ts';
import type { Failpoint } from '../failpoints.ts';
import type { SegmentMonth } from '../rows/month.ts';
import { sessionColumns, usageColumns } from '../rows/pack.ts';
import type { OutboundPayload, Payload, SegmentRows } from '../rows/segment-rows.ts';
import { openSessionRows } from '../rows/session-rows.ts';
import { openUsageRows } from '../rows/usage-rows.ts';
import { type ClickHouseClient, writePart } from '../stores/clickhouse.ts';
import { type Hold, keepHold } from './hold.ts';
import { dropTrialTable, findRefusedRows, type RefusedRow } from './poison/bisect.ts';
import { dataRefusal } from './poison/refusal.ts';
import { type Rejected, readRejected, rejectRows } from './poison/reject.ts';
import type { Overtaken, Segment } from './seal.ts';

interface InsertDeps extends Hold {
  clickhouse: ClickHouseClient;
  /** Memory for the rows as they are sent. */
  buffers: BufferPool;
  /**
   * From this attempt on, Core looks for the rows at fault in a month that ClickHouse refuses for its
   * data. Absent: never.
   */
  poisonAttempts?: number | undefined;
  pauseBetweenMonths?: ((insertMs: number) => Promise<void>) | undefined;
  failpoint?: Failpoint | undefined;
  refusedRowsMax?: number | undefined;
}

type RowKind = 'usage' | 'session';

const tables = {
  usage: { table: 'usage', columns: usageColumns, time: 'recorded_at' },
  session: { table: 'session_events', columns: sessionColumns, time: 'occurred_at' },
} as const;

export type Inserted =
  | {
      outcome: 'inserted';
      /** The rows for the counters: all but the rejected ones. */
      payloads: (Payload | OutboundPayload)[];
      /**
       * Memory of the pool that is free once the rows are counted. Empty if ClickHouse refused a
       * request: the client may still be about to send a part of it.
       */
      spare: Buffer[];
    }
  | Overtaken;

/** How many tokens are tried for one month of a segment; see writeUntilShown. */
const tokensMax = 4;
const noPositions: ReadonlySet<number> = new Set();

/**
 * Puts a segment's rows into ClickHouse, one INSERT a month. `blocks` holds them as the spool does.
 * Outbound rows have no table there: they only pass through, and settle adds them to their counters.
 *
 * It counts and commits the attempt first. After a first attempt, some or all months of the segment
 * may be there already: Core counts the rows and inserts the missing months only. See
 * ARCHITECTURE.md, "What a crash does".
 *
 * If ClickHouse keeps refusing a month for its data, this commits the rows at fault to rejected_rows
 * and inserts the rest. Every later attempt leaves the same rows out.
 * @throws CoreError SEGMENT_ROWS_LOST if a month holds some but not all of its rows, or the blocks
 * are not what was sealed; SEGMENT_NOT_SHOWN; SEGMENT_REFUSED.
 */
export async function insertSegment(
  deps: InsertDeps,
  segment: Segment,
  blocks: Buffer,
): Promise<Inserted> {
  const { kind, rows } = segment;
  if (kind === 'outbound') {
    const payload: OutboundPayload = { format: 'outbound', rows, bytes: blocks };
    return { outcome: 'inserted', payloads: [payload], spare: [blocks] };
  }
  await deps.failpoint?.('insert:before');
  const inserted = await writeMonths(deps, segment, kind, blocks);
  await deps.failpoint?.('insert:after');
  return inserted;
}

/** A segment that is being inserted. */
interface Insert extends InsertDeps {
  segment: Segment;
  kind: RowKind;
  rows: SegmentRows;
}

/** A month of a segment, and those of its rows that the table should have. */
interface MonthRows {
  month: SegmentMonth;
  payload: Payload;
  /** Positions of the rows that earlier attempts left out. */
  rejected: ReadonlySet<number>;
}

async function writeMonths(
  deps: InsertDeps,
  segment: Segment,
  kind: RowKind,
  blocks: Buffer,
): Promise<Inserted> {
  await deps.client.query('UPDATE segments SET attempts = attempts + 1 WHERE id = $1', [
    segment.id,
  ]);
  const earlier = segment.attempts > 0 ? await readEarlier(deps, segment, kind) : undefined;
  const rows = openRows(segment, kind, blocks, deps.buffers);
  const insert: Insert = { ...deps, segment, kind, rows };
  const payloads: Payload[] = [];
  let spare = [blocks];
  for (const month of rows.months) {
    const rejected = earlier?.rejected.get(month.yyyymm) ?? noPositions;
    const payload = rows.payload(month, rejected);
    if (payload.format === 'Native') spare.push(payload.bytes);
    if (earlier !== undefined && isPresent(payload, month, earlier.present, segment)) {
      payloads.push(payload);
      continue;
    }
    const startMs = performance.now();
    const written = await writeMonth(insert, { month, payload, rejected });
    if (written.outcome === 'overtaken') return written;
    if (written.wasRefused) spare = [];
    payloads.push(written.payload);
    if (month !== rows.months.at(-1)) await deps.pauseBetweenMonths?.(performance.now() - startMs);
  }
  return { outcome: 'inserted', payloads, spare };
}

/**
 * Opens the rows of a segment, which `blocks` holds as the spool does.
 * @throws CoreError SEGMENT_ROWS_LOST if the blocks do not hold the usage rows that were sealed.
 */
export function openRows(
  { id: segmentId, rows }: { id: number; rows: number },
  kind: RowKind,
  blocks: Buffer,
  buffers: BufferPool,
): SegmentRows {
  if (kind === 'session') return openSessionRows(blocks, segmentId);
  return openUsageRows({ blocks, rows, segmentId }, buffers.take);
}

/** What earlier attempts left: rows in ClickHouse, and rows that they decided to leave out. */
async function readEarlier(
  deps: InsertDeps,
  segment: Segment,
  kind: RowKind,
): Promise<{ rejected: Rejected; present: ReadonlyMap<number, number> }> {
  if (looksForRefusedRows(deps, segment)) {
    // An attempt that was killed during the search leaves its trial table.
    await dropTrialTable(deps.clickhouse, { ...tables[kind], segmentId: segment.id });
  }
  return {
    rejected: await readRejected(deps.client, segment.id),
    present: await keepHold(deps, () => countRows(deps.clickhouse, kind, segment.id)),
  };
}

function looksForRefusedRows(deps: InsertDeps, segment: Segment): boolean {
  return deps.poisonAttempts !== undefined && segment.attempts + 1 >= deps.poisonAttempts;
}

/** What the table has of a month now, and whether ClickHouse refused a request on the way there. */
type Written = { outcome: 'written'; payload: Payload; wasRefused: boolean } | Overtaken;

/**
 * Writes a month that is missing. If ClickHouse has refused it for its data often enough, this finds
 * the rows at fault and commits them as rejected before it writes any row. Otherwise a count of the
 * rows could not say after a crash whether the month is there.
 */
async function writeMonth(insert: Insert, part: MonthRows): Promise<Written> {
  const { clickhouse, segment, kind, rows, refusedRowsMax } = insert;
  const { month, payload, rejected } = part;
  try {
    await keepHold(insert, () =>
      segment.attempts === 0
        ? writeWithToken(insert, month, payload, 0)
        : writeUntilShown(insert, month, payload),
    );
    return { outcome: 'written', payload, wasRefused: false };
  } catch (thrown) {
    if (dataRefusal(thrown) === undefined || !looksForRefusedRows(insert, segment)) throw thrown;
    const target = { ...tables[kind], segmentId: segment.id, refusedRowsMax };
    const refused = await keepHold(insert, () =>
      findRefusedRows(clickhouse, target, rows.singleRows(month, rejected)),
    );
    // ClickHouse takes each row alone, so no row is at fault, and the operator has to see the error.
    if (refused.length === 0) throw thrown;
    return rejectAndWriteRest(insert, part, refused);
  }
}

async function rejectAndWriteRest(
  insert: Insert,
  { month, payload, rejected }: MonthRows,
  refused: RefusedRow[],
): Promise<Written> {
  const { client, clickhouse, segment, kind, rows, failpoint } = insert;
  // The table may have taken the rows, and something behind it, like a view, may have refused them.
  const present = await countRows(clickhouse, kind, segment.id);
  if (isPresent(payload, month, present, segment)) {
    return { outcome: 'written', payload, wasRefused: true };
  }
  await failpoint?.('reject:before');
  const decided = await rejectRows(client, segment, kind, month.yyyymm, refused);
  if (decided.outcome === 'overtaken') return decided;
  await failpoint?.('reject:after');
  const positions = new Set([...rejected, ...refused.map((row) => row.position)]);
  const rest = rows.payload(month, positions);
  if (rest.rows > 0) await keepHold(insert, () => writeUntilShown(insert, month, rest));
  return { outcome: 'written', payload: rest, wasRefused: true };
}

/**
 * Writes a month that a count has shown to be missing. ClickHouse may know its token for one of two
 * reasons. A worker that seems dead may still insert with it: then the token makes one of the two
 * inserts a no-op. Or ClickHouse logged the token and lost the rows in a crash: then it answers that
 * the insert is done, but the rows are missing. So this counts the rows again, and tries the next
 * token while they are missing. All workers try the same tokens in the same order.
 * @throws CoreError SEGMENT_NOT_SHOWN after `tokensMax` tokens.
 */
async function writeUntilShown(
  insert: Insert,
  month: SegmentMonth,
  payload: Payload,
): Promise<void> {
  const { clickhouse, kind, segment } = insert;
  for (let attempt = 0; attempt < tokensMax; attempt += 1) {
    await writeWithToken(insert, month, payload, attempt);
    const present = await countRows(clickhouse, kind, segment.id);
    if (isPresent(payload, month, present, segment)) return;
  }
  throw new CoreError(
    'SEGMENT_NOT_SHOWN',
    `ClickHouse took partition ${month.yyyymm} of segment ${segment.id} but does not show its rows`,
  );
}

/** The token need not name the stream, because a segment's id never comes twice (segment-ids.ts). */
async function writeWithToken(
  { clickhouse, kind, segment, failpoint }: Insert,
  { yyyymm }: SegmentMonth,
  { format, bytes }: Payload,
  attempt: number,
): Promise<void> {
  const { table, columns } = tables[kind];
  const token = `segment-${segment.id}-${yyyymm}-${attempt}`;
  await failpoint?.('insert:send');
  await writePart(clickhouse, { table, columns, token, format, bytes });
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

/** How many rows of a segment ClickHouse has, by month. */
async function countRows(
  clickhouse: ClickHouseClient,
  kind: RowKind,
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
