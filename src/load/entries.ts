import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';
import { expandUsage } from '../ingest/compact.ts';
import { usageRow } from '../ingest/pack.ts';
import { blockFields } from '../ingest/streams.ts';

/** A run of stream entries, read whole. */
export interface Entries {
  firstId: string;
  lastId: string;
  rows: number;
  /** What the entries' blocks take in Redis. */
  bytes: number;
  /** Bytes ever appended to the stream up to and with the last entry. */
  appendedBytes: number;
  /** Packed rows of all entries. */
  block: Buffer;
}

/** Entries a read asks Redis for; an entry is about a megabyte at most (group-commit.ts). */
const readCount = 8;
/** A segment is held in memory whole. */
const segmentBytesMax = 67_108_864;

type RawEntry = [id: Buffer, fields: Buffer[]];

/**
 * Reads entries from `start` (exclusive with a leading `(`) to `end`, as many as fit the bounds but
 * at least one. Undefined where there is none.
 */
export async function readEntries(
  redis: Redis,
  range: { stream: string; start: string; end: string; rowsMax: number },
): Promise<Entries | undefined> {
  const entries: Entry[] = [];
  let rows = 0;
  let packedBytes = 0;
  let start = range.start;
  for (;;) {
    const page = (await redis.xrangeBuffer(
      range.stream,
      start,
      range.end,
      'COUNT',
      readCount,
    )) as unknown as RawEntry[];
    for (const raw of page) {
      const entry = parseEntry(range.stream, raw);
      const isOver =
        rows + entry.rows > range.rowsMax || packedBytes + entry.packedBytes > segmentBytesMax;
      if (isOver && entries.length > 0) return joined(range.stream, entries);
      rows += entry.rows;
      packedBytes += entry.packedBytes;
      entries.push(entry);
    }
    const last = entries.at(-1);
    if (page.length < readCount || last === undefined) break;
    start = `(${last.id}`;
  }
  return joined(range.stream, entries);
}

interface Entry {
  id: string;
  rows: number;
  appendedBytes: number;
  block: Buffer;
  isCompact: boolean;
  /** Of the rows once they are packed. */
  packedBytes: number;
}

/** Fields as redis/append.lua writes them: n rows, c appended bytes, then the blocks. */
function parseEntry(stream: string, [rawId, fields]: RawEntry): Entry {
  const id = rawId.toString();
  const [, rowsText, , appended, field, block] = fields;
  if (rowsText === undefined || appended === undefined || block === undefined) {
    throw notCores(stream, id);
  }
  const rows = Number(rowsText.toString());
  const isCompact = field?.toString() === blockFields.usage;
  return {
    id,
    rows,
    appendedBytes: Number(appended.toString()),
    block,
    isCompact,
    packedBytes: isCompact ? rows * usageRow.length : block.length,
  };
}

function joined(stream: string, entries: readonly Entry[]): Entries | undefined {
  const [first, last] = [entries.at(0), entries.at(-1)];
  if (first === undefined || last === undefined) return undefined;
  const sum = (of: (entry: Entry) => number): number =>
    entries.reduce((total, entry) => total + of(entry), 0);
  const block = Buffer.allocUnsafeSlow(sum((entry) => entry.packedBytes));
  let at = 0;
  for (const entry of entries) {
    const into = block.subarray(at, at + entry.packedBytes);
    if (!entry.isCompact) into.set(entry.block);
    else if (!expandUsage(entry.block, entry.rows, into)) throw notCores(stream, entry.id);
    at += entry.packedBytes;
  }
  return {
    firstId: first.id,
    lastId: last.id,
    rows: sum((entry) => entry.rows),
    bytes: sum((entry) => entry.block.length),
    appendedBytes: last.appendedBytes,
    block,
  };
}

function notCores(stream: string, id: string): CoreError {
  return new CoreError('SEGMENT_ROWS_LOST', `Entry ${id} of ${stream} is not one of Core's`);
}
