import type { Redis } from 'ioredis';
import type { BufferPool } from '../buffer-pool.ts';
import { CoreError } from '../errors.ts';
import { compactBlocks } from '../rows/compact.ts';
import { blockFields, type Kind } from './streams.ts';

/** Neighbouring stream entries, read whole. */
export interface StreamEntries {
  firstId: string;
  lastId: string;
  rows: number;
  /** Length of `blocks`. */
  bytes: number;
  /** Bytes ever appended to the stream up to and including the last stream entry. */
  appendedBytes: number;
  /** All rows, in memory of the reader's pool: usage compact, other kinds packed. */
  blocks: Buffer;
}

interface StreamRange {
  stream: string;
  kind: Kind;
  /** Ids of stream entries. A leading `(` excludes the id itself. */
  start: string;
  end: string;
  rowsMax: number;
}

/** Reads the stream entries of one range: as many as fit the bounds, but at least one. */
export interface StreamReader {
  /** Reads to the present end of the stream, or to the bounds. One call must end before the next one. */
  fill(): Promise<void>;
  /** What has been read so far; undefined if there was no stream entry. */
  entries(): StreamEntries | undefined;
}

/**
 * Stream entries in the first read. The largest take about a megabyte (flushBytesMax in
 * group-commit.ts).
 */
const readCountFirst = 8;
/**
 * Later reads ask for as many stream entries as are likely to take this much, judged by those read so
 * far. They range from a hundred bytes to a megabyte, so the guess may be far off. It has a bound of
 * its own.
 */
const readBytes = 4_194_304;
const readCountMax = 64;
/** A segment is held in memory whole. */
const segmentBytesMax = 67_108_864;
/** A worker's pool. A run holds two segments as they were read, and one as it is sent. */
export const segmentMemory = { bytesMax: segmentBytesMax, keptBytesMax: 2 * segmentBytesMax };
const blockBytesFirst = 1_048_576;

type RawStreamEntry = [id: Buffer, fields: Buffer[]];

/**
 * Copies the blocks of each page into one buffer as soon as the page has come. Then V8 can free the
 * answer of Redis at once. The caller may start `fill` and await something else meanwhile.
 */
export function createStreamReader(
  redis: Redis,
  { stream, kind, start, end, rowsMax }: StreamRange,
  buffers: BufferPool,
): StreamReader {
  let ids: { first: string; last: string } | undefined;
  let count = 0;
  let blocks: Buffer | undefined;
  let rows = 0;
  let bytes = 0;
  let appendedBytes = 0;
  let isFull = false;

  const room = (needed: number): Buffer => {
    if (blocks !== undefined && blocks.length >= needed) return blocks;
    const larger = buffers.take(Math.max(needed, blockBytesFirst, bytes * 2));
    if (blocks !== undefined) {
      blocks.copy(larger, 0, 0, bytes);
      buffers.give(blocks);
    }
    blocks = larger;
    return blocks;
  };

  const add = (entry: StreamEntry): void => {
    room(bytes + entry.blocks.length).set(entry.blocks, bytes);
    ids = { first: ids?.first ?? entry.id, last: entry.id };
    count += 1;
    rows += entry.rows;
    bytes += entry.blocks.length;
    appendedBytes = entry.appendedBytes;
  };

  /** Hardly more than fit: the reader of the next segment reads again what did not fit. */
  const readCount = (): number => {
    if (count === 0) return readCountFirst;
    const fitting = Math.ceil((rowsMax - rows) / (rows / count));
    const wanted = Math.ceil(readBytes / (bytes / count));
    return Math.max(1, Math.min(fitting, wanted, readCountMax));
  };

  return {
    async fill() {
      while (!isFull) {
        const most = readCount();
        const from = ids === undefined ? start : `(${ids.last}`;
        const page = (await redis.xrangeBuffer(
          stream,
          from,
          end,
          'COUNT',
          most,
        )) as unknown as RawStreamEntry[];
        for (const raw of page) {
          const entry = parseEntry(stream, kind, raw);
          const isOver =
            rows + entry.rows > rowsMax || bytes + entry.blocks.length > segmentBytesMax;
          isFull = isOver && ids !== undefined;
          if (isFull) return;
          add(entry);
        }
        if (page.length < most) return;
      }
    },
    entries() {
      if (ids === undefined || blocks === undefined) return undefined;
      const { first: firstId, last: lastId } = ids;
      return {
        firstId,
        lastId,
        rows,
        bytes,
        appendedBytes,
        blocks: blocks.subarray(0, bytes),
      };
    },
  };
}

/** What a range holds now, within its bounds. */
export async function readStreamEntries(
  redis: Redis,
  range: StreamRange,
  buffers: BufferPool,
): Promise<StreamEntries | undefined> {
  const reader = createStreamReader(redis, range, buffers);
  await reader.fill();
  return reader.entries();
}

interface StreamEntry {
  id: string;
  rows: number;
  appendedBytes: number;
  blocks: Buffer;
}

/** The fields as redis/append.lua writes them: `n` rows, `c` appended bytes, then the blocks. */
function parseEntry(stream: string, kind: Kind, [rawId, fields]: RawStreamEntry): StreamEntry {
  const id = rawId.toString();
  const [, rowsText, , appended, field, blocks] = fields;
  if (rowsText === undefined || appended === undefined || blocks === undefined) {
    throw foreignEntry(stream, id);
  }
  const rows = Number(rowsText.toString());
  // A row takes several bytes, packed or compact.
  if (!Number.isSafeInteger(rows) || rows < 1 || rows > blocks.length) {
    throw foreignEntry(stream, id);
  }
  // An earlier Core stored usage packed.
  const isPackedUsage = kind === 'usage' && field?.toString() !== blockFields.usage;
  return {
    id,
    rows,
    appendedBytes: Number(appended.toString()),
    blocks: isPackedUsage ? compactBlocks(blocks) : blocks,
  };
}

function foreignEntry(stream: string, id: string): CoreError {
  return new CoreError('SEGMENT_ROWS_LOST', `Core did not write stream entry ${id} of ${stream}`);
}
