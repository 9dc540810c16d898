import { CoreError } from '../errors.ts';
import { ingestModule, inputStart } from './module.ts';
import { createMonthCounts, isIn, type Month, monthOf, type SegmentMonth } from './month.ts';
import { usageRow, varint } from './pack.ts';
import type { SegmentRows, UsagePayload } from './segment-rows.ts';
import { splitRows } from './single-rows.ts';

/**
 * A column of `usage` as it is sent: its name, the first of its columns of halves in
 * assembly/columns.ts, which bit of wideColumns() says that it needs 64 bits, and its type where it does
 * not. ClickHouse widens it.
 */
const columns = [
  { key: 'nodeId', name: 'node_id', half: 0, bit: undefined, narrow: 'UInt32' },
  { key: 'nodeProtocolId', name: 'node_protocol_id', half: 1, bit: 0, narrow: 'UInt32' },
  { key: 'userId', name: 'user_id', half: 3, bit: 1, narrow: 'UInt32' },
  { key: 'subscriptionId', name: 'subscription_id', half: 5, bit: 2, narrow: 'UInt32' },
  { key: 'bytesUp', name: 'bytes_up', half: 7, bit: 3, narrow: 'UInt32' },
  { key: 'bytesDown', name: 'bytes_down', half: 9, bit: 4, narrow: 'UInt32' },
  { key: 'recordedAt', name: 'recorded_at', half: 11, bit: undefined, narrow: 'DateTime' },
] as const;
const halves = 12;
/** What is sorted takes two pairs of 32-bit numbers a row besides (assembly/columns.ts). */
const pairBytes = 16;

/** The columns of a block in the module's memory, for as long as nobody else uses that. */
interface Expanded {
  /** Of the module's memory when they were written. */
  use: number;
  bytes: Uint8Array;
  /** Addresses: the columns, room for the numbers of selected rows, for pairs, and for one column. */
  columns: number;
  selection: number;
  pairs: number;
  output: number;
  wide: number;
  earliestSeconds: number;
  latestSeconds: number;
}

/**
 * The usage rows of a segment, which `block` has compact (assembly/compact.ts). They are unpacked to
 * columns in the memory of the module, and again where somebody else has used it since.
 * @throws CoreError SEGMENT_ROWS_LOST where the block is not exactly so many rows.
 */
export function openUsage(
  { block, rows, segmentId }: { block: Buffer; rows: number; segmentId: number },
  allocate: (bytes: number) => Buffer,
): SegmentRows<UsagePayload> {
  let kept: Expanded | undefined;
  const expanded = (): Expanded => {
    if (kept === undefined || kept.use !== ingestModule().uses()) kept = expand(block, rows);
    if (kept !== undefined) return kept;
    throw new CoreError(
      'SEGMENT_ROWS_LOST',
      `Segment ${segmentId} is not ${rows} rows of usage as Core writes them`,
    );
  };
  const months = monthsOf(expanded(), rows);
  return {
    months,
    payload(month, rejected) {
      const from = expanded();
      const isWhole = months.length === 1 && rejected.size === 0;
      const count = isWhole ? rows : select(from, rows, month, rejected);
      const selection = isWhole ? 0 : from.selection;
      return writeNative(from, { rows, selection, count, segmentId }, allocate);
    },
    singleRows(month, rejected) {
      const all = splitRows('usage', packRows(expanded(), rows, segmentId));
      return all
        .filter(({ bytes }) => isIn(month, bytes.readUInt32LE(usageRow.recordedAt)))
        .map(({ bytes }, position) => ({ position, bytes }))
        .filter(({ position }) => !rejected.has(position));
    },
  };
}

/** All rows of a block as packUsage writes them, with no segment; undefined where it has others. */
export function unpackUsage(block: Uint8Array, rows: number): Buffer | undefined {
  const from = expand(block, rows);
  return from && packRows(from, rows, 0);
}

function expand(block: Uint8Array, rows: number): Expanded | undefined {
  const { exports, memory, uses } = ingestModule();
  // Aligned for whoever views it as words; some bytes past the input are read.
  const at = Math.ceil((inputStart + block.length) / 8) * 8 + 8;
  const selection = at + rows * halves * 4;
  const pairs = selection + rows * 4 + ((rows * 4) % 8);
  const output = pairs + rows * pairBytes;
  const bytes = memory(output + rows * 8);
  bytes.set(block, inputStart);
  if (exports.expandColumns(inputStart, block.length, at, rows) !== rows) return undefined;
  return {
    use: uses(),
    bytes,
    columns: at,
    selection,
    pairs,
    output,
    wide: exports.wideColumns(),
    // Numbers of 32 bits come from the module signed.
    earliestSeconds: exports.earliestTime() >>> 0,
    latestSeconds: exports.latestTime() >>> 0,
  };
}

function halfOf({ bytes, columns }: Expanded, rows: number, index: number): Uint32Array {
  return new Uint32Array(bytes.buffer, columns + index * rows * 4, rows);
}

/** Seconds since 1970 of each row. */
function timesOf(from: Expanded, rows: number): Uint32Array {
  return halfOf(from, rows, halves - 1);
}

/** Nearly always one. */
function monthsOf(from: Expanded, rows: number): SegmentMonth[] {
  const first = monthOf(from.earliestSeconds);
  if (from.latestSeconds < first.endSeconds) return [{ ...first, rows }];
  const times = timesOf(from, rows);
  const counts = createMonthCounts();
  for (let row = 0; row < times.length; row += 1) counts.count(times[row] as number);
  return counts.list();
}

/** Writes the numbers of a month's rows where the sort looks for them, and returns how many. */
function select(from: Expanded, rows: number, month: Month, rejected: ReadonlySet<number>): number {
  const times = timesOf(from, rows);
  const numbers = new Uint32Array(from.bytes.buffer, from.selection, rows);
  let position = 0;
  let count = 0;
  for (let row = 0; row < rows; row += 1) {
    if (!isIn(month, times[row] as number)) continue;
    if (!rejected.has(position)) {
      numbers[count] = row;
      count += 1;
    }
    position += 1;
  }
  return count;
}

/**
 * One block of ClickHouse's format Native, columns one after another, of which ClickHouse need not
 * take rows apart; the rows are in the order of the table, which it then only checks.
 *
 * Source: https://clickhouse.com/docs/interfaces/formats/Native
 */
function writeNative(
  from: Expanded,
  what: { rows: number; selection: number; count: number; segmentId: number },
  allocate: (bytes: number) => Buffer,
): UsagePayload {
  const { exports } = ingestModule();
  const { rows, selection, count, segmentId } = what;
  const sorted = exports.sortColumns(from.columns, rows, selection, count, from.pairs);
  const head = Buffer.concat([varint(columns.length + 1), varint(count)]);
  const parts = columns.map((column) => {
    const isWide = column.bit !== undefined && (from.wide & (1 << column.bit)) !== 0;
    const type = isWide ? 'UInt64' : column.narrow;
    const width: 4 | 8 = isWide ? 8 : 4;
    return { ...column, isWide, width, head: columnHead(column.name, type) };
  });
  const lastHead = columnHead('segment', 'UInt64');
  const headBytes = parts.reduce((sum, part) => sum + part.head.length, head.length);
  const width = parts.reduce((sum, part) => sum + part.width, 8);
  const bytes = allocate(headBytes + lastHead.length + count * width);
  const places = {} as Record<(typeof columns)[number]['key'], { at: number; width: 4 | 8 }>;
  let at = head.copy(bytes);
  for (const { key, half, isWide, width: valueBytes, head: partHead } of parts) {
    at += partHead.copy(bytes, at);
    exports.writeColumn(from.columns, rows, half, isWide ? 1 : 0, sorted, count, from.output);
    bytes.set(from.bytes.subarray(from.output, from.output + count * valueBytes), at);
    places[key] = { at, width: valueBytes };
    at += count * valueBytes;
  }
  at += lastHead.copy(bytes, at);
  bytes.fill(uint64(segmentId), at, at + count * 8);
  const { subscriptionId, bytesUp, bytesDown } = places;
  return {
    format: 'Native',
    rows: count,
    bytes: bytes.subarray(0, at + count * 8),
    columns: { subscriptionId, bytesUp, bytesDown },
  };
}

function columnHead(name: string, type: string): Buffer {
  return Buffer.concat([text(name), text(type)]);
}

function text(value: string): Buffer {
  return Buffer.concat([varint(value.length), Buffer.from(value)]);
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** All rows, packed as RowBinary: for a segment whose rows' fate is decided one by one. */
function packRows(from: Expanded, rows: number, segmentId: number): Buffer {
  const packed = Buffer.alloc(rows * usageRow.length);
  const segment = uint64(segmentId);
  const sources = columns.map(({ key, half, bit }) => ({
    offset: usageRow[key],
    lower: halfOf(from, rows, half),
    upper: bit === undefined ? undefined : halfOf(from, rows, half + 1),
  }));
  for (let row = 0; row < rows; row += 1) {
    const at = row * usageRow.length;
    for (const { offset, lower, upper } of sources) {
      packed.writeUInt32LE(lower[row] as number, at + offset);
      if (upper !== undefined) packed.writeUInt32LE(upper[row] as number, at + offset + 4);
    }
    segment.copy(packed, at + usageRow.segment);
  }
  return packed;
}
