import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { BufferPool } from '../buffer-pool.ts';
import { CoreError } from '../errors.ts';
import type { Failpoint } from '../failpoints.ts';
import { type Entries, readEntries } from '../spool/entries.ts';
import type { Kind } from '../spool/streams.ts';
import { inClientTransaction } from '../stores/postgres.ts';

/** A range of a stream that never changes again. */
export interface Segment {
  id: number;
  stream: string;
  kind: Kind;
  seq: number;
  firstId: string;
  lastId: string;
  rows: number;
  /** What its entries take in Redis. */
  bytes: number;
  appendedBytes: number;
  attempts: number;
}

/** A segment, and its entries where sealing has just read them. */
export interface Sealed {
  segment: Segment;
  entries: Entries | undefined;
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
 * Seals the entries after the last segment, which `read` is asked for by the id of its last entry. The
 * segment and the stream's new position are one transaction; a crash before it leaves the entries
 * where they are, to be sealed by the next run. Undefined where the stream has no new entry.
 */
export async function sealNext(
  client: pg.PoolClient,
  stream: string,
  read: (afterId: string, kind: Kind) => Promise<Entries | undefined>,
  failpoint?: Failpoint | undefined,
): Promise<Sealed | undefined> {
  const position = await client.query<{ kind: Kind; seq: number; sealedId: string }>(
    `SELECT kind, next_seq AS seq, sealed_id AS "sealedId" FROM streams WHERE stream = $1`,
    [stream],
  );
  const at = position.rows[0];
  if (at === undefined) return undefined;
  const entries = await read(at.sealedId, at.kind);
  if (entries === undefined) return undefined;
  await failpoint?.('seal:before');
  const id = await inClientTransaction(client, async () => {
    await client.query(
      'UPDATE streams SET next_seq = next_seq + 1, sealed_id = $2 WHERE stream = $1',
      [stream, entries.lastId],
    );
    const inserted = await client.query<{ id: number }>(
      `INSERT INTO segments (stream, seq, first_id, last_id, rows, bytes, appended_bytes)
       VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id`,
      [
        stream,
        at.seq,
        entries.firstId,
        entries.lastId,
        entries.rows,
        entries.bytes,
        entries.appendedBytes,
      ],
    );
    return inserted.rows[0]?.id ?? 0;
  });
  await failpoint?.('seal:after');
  const { block: _, ...range } = entries;
  const { kind, seq } = at;
  return { segment: { id, stream, kind, seq, attempts: 0, ...range }, entries };
}

/**
 * Reads a sealed range again after a crash or failure.
 * @throws CoreError SEGMENT_ROWS_LOST where it is not what was sealed, to the row.
 */
export async function readSealed(
  redis: Redis,
  segment: Segment,
  buffers: BufferPool,
): Promise<Entries> {
  const { stream, kind, firstId: start, lastId: end, rows: rowsMax } = segment;
  const entries = await readEntries(redis, { stream, kind, start, end, rowsMax }, buffers);
  if (entries?.lastId !== end || entries.rows !== rowsMax) {
    throw new CoreError(
      'SEGMENT_ROWS_LOST',
      `Segment ${segment.id} has ${rowsMax} rows, Redis holds ${entries?.rows ?? 0} of them`,
    );
  }
  return entries;
}
