import type pg from 'pg';
import { decodeRow } from '../../rows/single-rows.ts';
import { inClientTransaction } from '../../stores/postgres.ts';
import { type Overtaken, overtaken, type Segment } from '../seal.ts';
import type { RefusedRow } from './bisect.ts';

/** Positions of the rejected rows of a segment, by month. */
export type Rejected = ReadonlyMap<number, ReadonlySet<number>>;

/** Which rows of a segment earlier attempts decided to leave out. */
export async function readRejected(client: pg.PoolClient, segmentId: number): Promise<Rejected> {
  const { rows } = await client.query<{ month: number; position: number }>(
    'SELECT month, position FROM rejected_rows WHERE segment_id = $1',
    [segmentId],
  );
  const rejected = new Map<number, Set<number>>();
  for (const { month, position } of rows) {
    const positions = rejected.get(month) ?? new Set();
    rejected.set(month, positions.add(position));
  }
  return rejected;
}

/**
 * Commits which rows of a month are left out. After that every attempt inserts the same rest and
 * expects the same count. So the caller does this before it inserts the rest, and only if nothing of
 * the month is inserted yet. If another run has settled the segment, its rows stay as they are.
 */
export async function rejectRows(
  client: pg.PoolClient,
  segment: Segment,
  kind: 'usage' | 'session',
  month: number,
  rows: readonly RefusedRow[],
): Promise<{ outcome: 'rejected' } | Overtaken> {
  return inClientTransaction(client, async () => {
    const { rowCount } = await client.query(
      `UPDATE segments SET rejected = rejected + $2 WHERE id = $1 AND state = 'sealed'`,
      [segment.id, rows.length],
    );
    if (rowCount !== 1) return overtaken(segment);
    await client.query(
      `INSERT INTO rejected_rows (segment_id, month, position, kind, row_bytes, row_json, reason)
       SELECT $1, $2, given.position, $3, given.row_bytes, given.row_json, given.reason
       FROM unnest($4::integer[], $5::bytea[], $6::json[], $7::text[])
         AS given (position, row_bytes, row_json, reason)`,
      [
        segment.id,
        month,
        kind,
        rows.map((row) => row.position),
        rows.map((row) => row.bytes),
        rows.map((row) => JSON.stringify(decodeRow(kind, row.bytes))),
        rows.map((row) => row.reason),
      ],
    );
    return { outcome: 'rejected' };
  });
}
