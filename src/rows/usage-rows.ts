import { CoreError } from '../errors.ts';
import { createMonthCounts, isIn, type Month, monthOf, type SegmentMonth } from './month.ts';
import { usageRow, varint } from './pack.ts';
import type { SegmentRows, UsagePayload } from './segment-rows.ts';
import { splitRows } from './single-rows.ts';
import { openUsageColumns, type UsageColumns } from './wasm.ts';

/**
 * The columns of `usage` that a segment's rows bring. `half` is the first half of the column in
 * assembly/columns.ts. `bit` is the bit of wideColumns() that is set if the column needs 64 bits.
 * `narrow` is its type if it does not; ClickHouse widens that itself.
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

/**
 * Opens the usage rows of a segment, which `blocks` holds compact.
 * @throws CoreError SEGMENT_ROWS_LOST if the blocks are not exactly this many rows.
 */
export function openUsageRows(
  { blocks, rows, segmentId }: { blocks: Buffer; rows: number; segmentId: number },
  allocate: (bytes: number) => Buffer,
): SegmentRows<UsagePayload> {
  const from = openUsageColumns(blocks, rows);
  if (from === undefined) {
    throw new CoreError(
      'SEGMENT_ROWS_LOST',
      `Segment ${segmentId} is not ${rows} rows of usage as Core writes them`,
    );
  }
  const months = monthsOf(from, rows);
  return {
    months,
    payload(month, rejected) {
      const isWhole = months.length === 1 && rejected.size === 0;
      const selection = isWhole ? undefined : select(from, month, rejected);
      return writeNative(from, { rows, selection, segmentId }, allocate);
    },
    singleRows(month, rejected) {
      return splitRows('usage', toRowBinary(from, rows, segmentId))
        .filter(({ bytes }) => isIn(month, bytes.readUInt32LE(usageRow.recordedAt)))
        .map(({ bytes }, position) => ({ position, bytes }))
        .filter(({ position }) => !rejected.has(position));
    },
  };
}

/**
 * Turns compact blocks back into the rows that packUsage writes. Undefined if they hold another
 * number of rows.
 */
export function expandUsage(blocks: Uint8Array, rows: number): Buffer | undefined {
  const from = openUsageColumns(blocks, rows);
  return from && toRowBinary(from, rows, 0);
}

/** The months of the rows, nearly always one. */
function monthsOf(from: UsageColumns, rows: number): SegmentMonth[] {
  const first = monthOf(from.earliestSeconds);
  if (from.latestSeconds < first.endSeconds) return [{ ...first, rows }];
  const counts = createMonthCounts();
  for (const seconds of from.times()) counts.count(seconds);
  return counts.list();
}

/** The numbers of a month's rows, without those of rejected rows. */
function select(from: UsageColumns, month: Month, rejected: ReadonlySet<number>): Uint32Array {
  const times = from.times();
  const numbers = new Uint32Array(times.length);
  let position = 0;
  let count = 0;
  for (let row = 0; row < times.length; row += 1) {
    if (!isIn(month, times[row] as number)) continue;
    if (!rejected.has(position)) {
      numbers[count] = row;
      count += 1;
    }
    position += 1;
  }
  return numbers.subarray(0, count);
}

/**
 * One block of ClickHouse's format Native. It has column after column, so ClickHouse need not split rows,
 * and its rows are in the order of the table, so ClickHouse need not sort them.
 *
 * Source: https://clickhouse.com/docs/interfaces/formats/Native
 */
function writeNative(
  from: UsageColumns,
  what: { rows: number; selection: Uint32Array | undefined; segmentId: number },
  allocate: (bytes: number) => Buffer,
): UsagePayload {
  const { rows, selection, segmentId } = what;
  const count = selection?.length ?? rows;
  const head = Buffer.concat([varint(columns.length + 1), varint(count)]);
  const parts = columns.map(({ key, name, half, bit, narrow }) => {
    const isWide = bit !== undefined && (from.wide & (1 << bit)) !== 0;
    const width: 4 | 8 = isWide ? 8 : 4;
    return { key, half, isWide, width, head: columnHead(name, isWide ? 'UInt64' : narrow) };
  });
  const lastHead = columnHead('segment', 'UInt64');
  const headBytes = parts.reduce((sum, part) => sum + part.head.length, head.length);
  const width = parts.reduce((sum, part) => sum + part.width, 8);
  const bytes = allocate(headBytes + lastHead.length + count * width);
  let at = head.copy(bytes);
  const places = parts.map((part) => {
    at += part.head.copy(bytes, at);
    const place = { ...part, at };
    at += count * part.width;
    return place;
  });
  from.writeSorted(selection, places, bytes);
  at += lastHead.copy(bytes, at);
  bytes.fill(uint64(segmentId), at, at + count * 8);
  const placeOf = (wanted: (typeof columns)[number]['key']): { at: number; width: 4 | 8 } => {
    const { at, width } = places.find(({ key }) => key === wanted) as (typeof places)[number];
    return { at, width };
  };
  return {
    format: 'Native',
    rows: count,
    bytes: bytes.subarray(0, at + count * 8),
    columns: {
      subscriptionId: placeOf('subscriptionId'),
      bytesUp: placeOf('bytesUp'),
      bytesDown: placeOf('bytesDown'),
    },
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

/** All rows as packUsage writes them, in the order of the stream: to decide on them one by one. */
function toRowBinary(from: UsageColumns, rows: number, segmentId: number): Buffer {
  const packed = Buffer.alloc(rows * usageRow.length);
  const segment = uint64(segmentId);
  const sources = columns.map(({ key, half, bit }) => ({
    offset: usageRow[key],
    lower: from.half(half),
    upper: bit === undefined ? undefined : from.half(half + 1),
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
