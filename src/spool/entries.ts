import type { Redis } from 'ioredis';
import type { BufferPool } from '../buffer-pool.ts';
import { CoreError } from '../errors.ts';
import { compactRows } from '../rows/compact.ts';
import { blockFields, type Kind } from './streams.ts';

/** A run of stream entries, read whole. */
export interface Entries {
  firstId: string;
  lastId: string;
  rows: number;
  /** What the entries' blocks take. */
  bytes: number;
  /** Bytes ever appended to the stream up to and with the last entry. */
  appendedBytes: number;
  /**
   * The rows of all entries, in memory of the reader's pool: those of usage compact, others packed.
   */
  block: Buffer;
}

export interface EntryRange {
  stream: string;
  kind: Kind;
  /** Exclusive with a leading `(`. */
  start: string;
  end: string;
  rowsMax: number;
}

/** Reads entries of one range, as many as fit the bounds but at least one. */
export interface EntryReader {
  /** Reads on to where the stream ends by now, or to the bounds. Not to be called twice at once. */
  fill(): Promise<void>;
  /** What has been read; undefined where that is no entry. */
  entries(): Entries | undefined;
}

/** Entries that the first read asks Redis for; one is about a megabyte at most (group-commit.ts). */
const readCountFirst = 8;
/**
 * Of what was read so far later reads guess how many entries make this much. A guess may be wrong by as
 * much as entries differ, from a hundred bytes to a megabyte, so it is bounded besides.
 */
const readBytes = 4_194_304;
const readCountMax = 64;
/** A segment is held in memory whole. */
const segmentBytesMax = 67_108_864;
/** Of the pool of a worker, for its segments: two as they were read, and one as it is sent. */
export const segmentMemory = { bytesMax: segmentBytesMax, keptBytesMax: 2 * segmentBytesMax };
/** First size of a block. */
const blockBytesFirst = 1_048_576;

type RawEntry = [id: Buffer, fields: Buffer[]];

/**
 * Blocks are copied as their page comes, into one: Redis' answers are let go of at once, and `fill`
 * may be called while something else is waited for.
 */
export function createEntryReader(
  redis: Redis,
  { stream, kind, start, end, rowsMax }: EntryRange,
  buffers: BufferPool,
): EntryReader {
  let ids: { first: string; last: string } | undefined;
  let count = 0;
  let block: Buffer | undefined;
  let rows = 0;
  let bytes = 0;
  let appendedBytes = 0;
  let isFull = false;

  const room = (needed: number): Buffer => {
    if (block !== undefined && block.length >= needed) return block;
    const larger = buffers.take(Math.max(needed, blockBytesFirst, bytes * 2));
    if (block !== undefined) {
      block.copy(larger, 0, 0, bytes);
      buffers.give(block);
    }
    block = larger;
    return block;
  };

  const add = (entry: Entry): void => {
    room(bytes + entry.block.length).set(entry.block, bytes);
    ids = { first: ids?.first ?? entry.id, last: entry.id };
    count += 1;
    rows += entry.rows;
    bytes += entry.block.length;
    appendedBytes = entry.appendedBytes;
  };

  /** Few more than fit: what does not is read again, by the reader of the next segment. */
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
        )) as unknown as RawEntry[];
        for (const raw of page) {
          const entry = parseEntry(stream, kind, raw);
          const isOver =
            rows + entry.rows > rowsMax || bytes + entry.block.length > segmentBytesMax;
          isFull = isOver && ids !== undefined;
          if (isFull) return;
          add(entry);
        }
        if (page.length < most) return;
      }
    },
    entries() {
      if (ids === undefined || block === undefined) return undefined;
      const { first: firstId, last: lastId } = ids;
      return {
        firstId,
        lastId,
        rows,
        bytes,
        appendedBytes,
        block: block.subarray(0, bytes),
      };
    },
  };
}

/** What a range holds by now, within its bounds. */
export async function readEntries(
  redis: Redis,
  range: EntryRange,
  buffers: BufferPool,
): Promise<Entries | undefined> {
  const reader = createEntryReader(redis, range, buffers);
  await reader.fill();
  return reader.entries();
}

interface Entry {
  id: string;
  rows: number;
  appendedBytes: number;
  block: Buffer;
}

/** Fields as redis/append.lua writes them: n rows, c appended bytes, then the blocks. */
function parseEntry(stream: string, kind: Kind, [rawId, fields]: RawEntry): Entry {
  const id = rawId.toString();
  const [, rowsText, , appended, field, block] = fields;
  if (rowsText === undefined || appended === undefined || block === undefined) {
    throw notCores(stream, id);
  }
  const rows = Number(rowsText.toString());
  // A row takes several bytes, packed or compact.
  if (!Number.isSafeInteger(rows) || rows < 1 || rows > block.length) throw notCores(stream, id);
  const isPacked = kind === 'usage' && field?.toString() !== blockFields.usage;
  return {
    id,
    rows,
    appendedBytes: Number(appended.toString()),
    // From before there were compact blocks.
    block: isPacked ? compactRows(block) : block,
  };
}

function notCores(stream: string, id: string): CoreError {
  return new CoreError('SEGMENT_ROWS_LOST', `Entry ${id} of ${stream} is not one of Core's`);
}
