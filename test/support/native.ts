import { compactBlocks } from '../../src/rows/compact.ts';
import { usageRow } from '../../src/rows/pack.ts';
import type { UsagePayload } from '../../src/rows/segment-rows.ts';
import { openUsageRows } from '../../src/rows/usage-rows.ts';

/** The columns in their order, without the segment, which is the last one. */
export const valueNames = [
  ...(['nodeId', 'nodeProtocolId', 'userId', 'subscriptionId'] as const),
  ...(['bytesUp', 'bytesDown', 'recordedAt'] as const),
];
/** Any values that the columns can hold, not only those that the contract allows. */
export type UsageValues = Record<(typeof valueNames)[number], bigint>;

/** Packs rows as packUsage does. */
export function packValues(rows: readonly UsageValues[]): Buffer {
  const bytes = Buffer.alloc(rows.length * usageRow.length);
  for (const [index, row] of rows.entries()) {
    const at = index * usageRow.length;
    for (const name of valueNames) {
      const isShort = name === 'nodeId' || name === 'recordedAt';
      if (isShort) bytes.writeUInt32LE(Number(row[name]), at + usageRow[name]);
      else bytes.writeBigUInt64LE(row[name], at + usageRow[name]);
    }
  }
  return bytes;
}

/** Packed usage rows, all of one month, as a segment of their own. */
export function payloadOf(packed: Buffer, segmentId = 1): UsagePayload {
  const blocks = compactBlocks(packed);
  const rows = packed.length / usageRow.length;
  const opened = openUsageRows({ blocks, rows, segmentId }, Buffer.alloc);
  const [month, ...others] = opened.months;
  if (month === undefined || others.length > 0) throw new Error('rows of one month are wanted');
  return opened.payload(month, new Set());
}

interface NativeBlock {
  rows: number;
  /** The type of each column, in their order. */
  types: Record<string, string>;
  columns: Record<string, bigint[]>;
}

/**
 * Reads one block of ClickHouse's format Native that has nothing but unsigned integers and DateTime.
 *
 * Source: https://clickhouse.com/docs/interfaces/formats/Native
 */
export function readNative(bytes: Buffer): NativeBlock {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes.readUInt8(at);
      at += 1;
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  const text = (): string => {
    const length = varint();
    at += length;
    return bytes.toString('latin1', at - length, at);
  };
  const widths: Record<string, number> = { UInt32: 4, UInt64: 8, DateTime: 4 };
  const count = varint();
  const block: NativeBlock = { rows: varint(), types: {}, columns: {} };
  for (let index = 0; index < count; index += 1) {
    const name = text();
    const type = text();
    const width = widths[type];
    if (width === undefined) throw new Error(`a column of type ${type}`);
    const start = at;
    at += block.rows * width;
    block.types[name] = type;
    block.columns[name] = Array.from({ length: block.rows }, (_, row) =>
      width === 8
        ? bytes.readBigUInt64LE(start + row * 8)
        : BigInt(bytes.readUInt32LE(start + row * 4)),
    );
  }
  if (at !== bytes.length) throw new Error(`${bytes.length - at} bytes follow the block`);
  return block;
}
