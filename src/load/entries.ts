import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';

/** A run of stream entries, read whole. */
export interface Entries {
  firstId: string;
  lastId: string;
  rows: number;
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
  const blocks: Buffer[] = [];
  let found: Omit<Entries, 'block'> | undefined;
  let bytes = 0;
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
      if (
        found !== undefined &&
        (found.rows + entry.rows > range.rowsMax || bytes + entry.block.length > segmentBytesMax)
      ) {
        return { ...found, block: Buffer.concat(blocks) };
      }
      bytes += entry.block.length;
      blocks.push(entry.block);
      found = {
        firstId: found?.firstId ?? entry.id,
        lastId: entry.id,
        rows: (found?.rows ?? 0) + entry.rows,
        appendedBytes: entry.appendedBytes,
      };
    }
    if (page.length < readCount || found === undefined) break;
    start = `(${found.lastId}`;
  }
  return found === undefined ? undefined : { ...found, block: Buffer.concat(blocks) };
}

/** Fields as redis/append.lua writes them: n rows, c appended bytes, b block. */
function parseEntry(stream: string, [id, fields]: RawEntry) {
  const [, rows, , appended, , block] = fields;
  if (rows === undefined || appended === undefined || block === undefined) {
    throw new CoreError('SEGMENT_ROWS_LOST', `Entry ${id} of ${stream} is not one of Core's`);
  }
  return {
    id: id.toString(),
    rows: Number(rows.toString()),
    appendedBytes: Number(appended.toString()),
    block,
  };
}
