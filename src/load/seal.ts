import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { BufferPool } from '../buffer-pool.ts';
import { CoreError, messageOf } from '../errors.ts';
import type { Failpoint } from '../failpoints.ts';
import {
  createStreamReader,
  readStreamEntries,
  type StreamEntries,
  type StreamReader,
} from '../spool/stream-entries.ts';
import type { Kind } from '../spool/streams.ts';
import { inClientTransaction } from '../stores/postgres.ts';

/** A range of a stream that never changes. */
export interface Segment {
  id: number;
  stream: string;
  kind: Kind;
  seq: number;
  firstId: string;
  lastId: string;
  rows: number;
  /** What its stream entries take in Redis. */
  bytes: number;
  /** Bytes ever appended to the stream up to and including its last stream entry. */
  appendedBytes: number;
  attempts: number;
}

/** A segment, with its stream entries if this run has sealed it and so has just read them. */
export interface Sealed {
  segment: Segment;
  entries: StreamEntries | undefined;
}

/**
 * How a run ends if it has lost a race: another run has settled segments that this one was about to
 * read, reject or settle. Nothing is lost or counted twice, and the next run starts behind them.
 */
export interface Overtaken {
  outcome: 'overtaken';
  segmentIds: readonly number[];
}

export function overtaken(...segments: readonly Pick<Segment, 'id'>[]): Overtaken {
  return { outcome: 'overtaken', segmentIds: segments.map(({ id }) => id) };
}

interface SealDeps {
  /** The connection that has the stream's lock: nobody else seals meanwhile. */
  client: pg.PoolClient;
  redis: Redis;
  buffers: BufferPool;
  failpoint?: Failpoint | undefined;
}

/** Which stream to seal, and how many rows a segment may have. */
interface SealRange {
  stream: string;
  rowsMax: number;
}

/** Gives a run the segments of its stream, in order. */
export interface Sealer {
  /**
   * The next segment: first those that an earlier run left sealed, inserted or not, then new ones.
   * Undefined if the stream has nothing more now.
   */
  next(): Promise<Sealed | undefined>;
  /**
   * Begins to read the stream entries behind the segment that this run sealed last, for the next call
   * of `next`. That call seals them, so if the run ends first, nothing has happened.
   */
  readAhead(): void;
}

/** Stream entries that are being read. */
interface Reading {
  afterId: string;
  reader: StreamReader;
  filled: Promise<void>;
}

export function createSealer(deps: SealDeps, range: SealRange): Sealer {
  const { client } = deps;
  const { stream } = range;
  let afterSeq = 0;
  let mayBeLeft = true;
  let last: Segment | undefined;
  let ahead: Reading | undefined;
  return {
    async next() {
      const left = mayBeLeft ? await oldestSealed(client, stream, afterSeq) : undefined;
      if (left !== undefined) {
        afterSeq = left.segment.seq;
        return left;
      }
      mayBeLeft = false;
      const reading = ahead;
      ahead = undefined;
      const sealed = await sealNext(deps, range, reading);
      last = sealed?.segment;
      return sealed;
    },
    readAhead() {
      if (last !== undefined) ahead = beginReading(deps, range, last.kind, last.lastId);
    },
  };
}

/** The oldest segment of the stream after `afterSeq` that is sealed and not settled. */
export async function oldestSealed(
  client: pg.PoolClient,
  stream: string,
  afterSeq = 0,
): Promise<Sealed | undefined> {
  const { rows } = await client.query<Segment>(
    `SELECT s.id, s.stream, t.kind, s.seq, s.first_id AS "firstId", s.last_id AS "lastId", s.rows,
       s.bytes, s.appended_bytes AS "appendedBytes", s.attempts
     FROM segments s JOIN streams t USING (stream)
     WHERE s.stream = $1 AND s.seq > $2 AND s.state = 'sealed' ORDER BY s.seq LIMIT 1`,
    [stream, afterSeq],
  );
  const segment = rows[0];
  return segment === undefined ? undefined : { segment, entries: undefined };
}

/**
 * Seals the stream entries behind the last segment: finds where that ends, reads what comes after it,
 * and commits the range as a segment. Undefined if there is no new stream entry.
 */
export async function sealNext(
  deps: SealDeps,
  range: SealRange,
  ahead?: Reading | undefined,
): Promise<Sealed | undefined> {
  const position = await readPosition(deps.client, range.stream);
  if (position === undefined) return undefined;
  const entries = await readAfter(deps, range, position, ahead);
  if (entries === undefined) return undefined;
  await deps.failpoint?.('seal:before');
  const segment = await commitSegment(deps.client, position, entries);
  await deps.failpoint?.('seal:after');
  return { segment, entries };
}

/** Where the last segment of a stream ends. */
interface Position {
  stream: string;
  kind: Kind;
  seq: number;
  sealedId: string;
}

async function readPosition(client: pg.PoolClient, stream: string): Promise<Position | undefined> {
  const { rows } = await client.query<Position>(
    `SELECT stream, kind, next_seq AS seq, sealed_id AS "sealedId" FROM streams WHERE stream = $1`,
    [stream],
  );
  return rows[0];
}

/** Reads the stream entries after a position. If a read ahead began there, it goes on with that one. */
async function readAfter(
  deps: SealDeps,
  range: SealRange,
  { kind, sealedId }: Position,
  ahead: Reading | undefined,
): Promise<StreamEntries | undefined> {
  const begun = ahead?.afterId === sealedId ? ahead : undefined;
  const { reader, filled } = begun ?? beginReading(deps, range, kind, sealedId);
  await filled;
  // The stream may have got more since it was read ahead.
  if (begun !== undefined) await reader.fill();
  return reader.entries();
}

function beginReading(
  { redis, buffers }: SealDeps,
  { stream, rowsMax }: SealRange,
  kind: Kind,
  afterId: string,
): Reading {
  const range = { stream, kind, start: `(${afterId}`, end: '+', rowsMax };
  const reader = createStreamReader(redis, range, buffers);
  const filled = reader.fill();
  // The caller who awaits it gets the failure. Until then Node must not take it for an unhandled one.
  filled.catch(() => undefined);
  return { afterId, reader, filled };
}

/**
 * Commits a range as a segment and moves the stream's position behind it, in one transaction. A crash
 * before the commit leaves the stream entries where they are, and the next run seals them.
 */
async function commitSegment(
  client: pg.PoolClient,
  { stream, kind, seq }: Position,
  { blocks: _, ...range }: StreamEntries,
): Promise<Segment> {
  const { firstId, lastId, rows, bytes, appendedBytes } = range;
  const id = await inClientTransaction(client, async () => {
    await client.query(
      'UPDATE streams SET next_seq = next_seq + 1, sealed_id = $2 WHERE stream = $1',
      [stream, lastId],
    );
    const added = await client.query<{ id: number }>(
      `INSERT INTO segments (stream, seq, first_id, last_id, rows, bytes, appended_bytes)
       VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id`,
      [stream, seq, firstId, lastId, rows, bytes, appendedBytes],
    );
    return added.rows[0]?.id ?? 0;
  });
  return { id, stream, kind, seq, attempts: 0, ...range };
}

/**
 * Reads the stream entries of a segment that an earlier run left. That run may have lost its lock
 * while its settle went on. Then its trim has dropped the stream entries.
 * @returns undefined if another run has settled the segment meanwhile.
 * @throws CoreError SEGMENT_ROWS_LOST if the range does not hold exactly the sealed rows.
 */
export async function readSealed(
  { client, redis, buffers }: SealDeps,
  segment: Segment,
): Promise<StreamEntries | undefined> {
  const { id, stream, kind, firstId: start, lastId: end, rows: rowsMax } = segment;
  const entries = await readStreamEntries(redis, { stream, kind, start, end, rowsMax }, buffers);
  if (entries?.lastId === end && entries.rows === rowsMax) return entries;
  const { rowCount } = await client.query(
    `SELECT FROM segments WHERE id = $1 AND state = 'sealed'`,
    [id],
  );
  if (rowCount === 0) return undefined;
  throw new CoreError(
    'SEGMENT_ROWS_LOST',
    `Segment ${id} has ${rowsMax} rows, Redis holds ${entries?.rows ?? 0} of them`,
  );
}

/**
 * Notes with its segments what made a run fail, for `core status` and `core segments`. The run is
 * about to throw that failure, so this throws no other one if it cannot write.
 */
export async function noteFailure(
  client: pg.PoolClient,
  segmentIds: readonly number[],
  cause: unknown,
): Promise<void> {
  await client
    .query(
      `UPDATE segments SET last_error = $2 WHERE id = ANY ($1::bigint[]) AND state = 'sealed'`,
      [segmentIds, messageOf(cause).slice(0, 1_000)],
    )
    .catch(() => undefined);
}
