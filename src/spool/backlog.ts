import type { Redis } from 'ioredis';
import type { Queryable } from '../stores/postgres.ts';
import { type Kind, streamKeys } from './streams.ts';

/** What one stream holds, and how much of it is not settled. */
export interface StreamBacklog {
  stream: string;
  kind: Kind;
  shard: number;
  /** Appended and not yet trimmed: what the backlog bound counts. */
  bytes: number;
  /** Stream entries. */
  entries: number;
  /** Rows ever appended. */
  rowsEver: number;
  /** Age of the oldest stream entry that is not settled; 0 if all are. */
  lagSeconds: number;
  /** Sealed and not settled. */
  segments: number;
  /** Rows ever settled that named a subscription or node that does not exist. */
  unknownRows: number;
}

/** A segment that is sealed and not settled. */
interface UnsettledSegment {
  segmentId: number;
  stream: string;
  seq: number;
  rows: number;
  bytes: number;
  attempts: number;
  /** Rows in rejected_rows. */
  rejected: number;
  sealedAt: Date;
  lastError: string | null;
}

interface StreamRow {
  stream: string;
  kind: Kind;
  shard: number;
  sealed_id: string;
  oldest_id: string | null;
  segments: number;
  unknown_rows: number;
}

/** Returns only the id: a stream entry can take a megabyte. */
const firstIdAfter = `local found = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1)
return found[1] and found[1][1] or false`;

/** The backlog of every stream that was ever registered with this prefix. */
export async function readBacklog(
  db: Queryable,
  redis: Redis,
  prefix: string,
): Promise<StreamBacklog[]> {
  const { rows } = await db.query<StreamRow>(
    `SELECT s.stream, s.kind, s.shard, s.sealed_id, s.unknown_rows, oldest.first_id AS oldest_id,
       (SELECT count(*)::integer FROM segments g
        WHERE g.stream = s.stream AND g.state = 'sealed') AS segments
     FROM streams s
     LEFT JOIN LATERAL (
       SELECT first_id FROM segments g WHERE g.stream = s.stream AND g.state = 'sealed'
       ORDER BY seq LIMIT 1
     ) oldest ON true
     WHERE starts_with(s.stream, $1) ORDER BY s.shard, s.stream`,
    [`${prefix}:`],
  );
  const [seconds] = await redis.time();
  const streams: StreamBacklog[] = [];
  for (const row of rows) streams.push(await readStream(redis, row, Number(seconds)));
  return streams;
}

async function readStream(
  redis: Redis,
  row: StreamRow,
  nowSeconds: number,
): Promise<StreamBacklog> {
  const keys = streamKeys(row.stream);
  const [appended, trimmed, rowsEver, entries, unsealedId] = await Promise.all([
    redis.get(keys.appended),
    redis.get(keys.trimmed),
    redis.get(keys.rows),
    redis.xlen(keys.stream),
    row.oldest_id === null ? redis.eval(firstIdAfter, 1, keys.stream, row.sealed_id) : null,
  ]);
  const oldestId = row.oldest_id ?? (unsealedId as string | null);
  return {
    stream: row.stream,
    kind: row.kind,
    shard: row.shard,
    bytes: Math.max(0, Number(appended ?? 0) - Number(trimmed ?? 0)),
    entries,
    rowsEver: Number(rowsEver ?? 0),
    lagSeconds: oldestId === null ? 0 : Math.max(0, nowSeconds - secondsOf(oldestId)),
    segments: row.segments,
    unknownRows: row.unknown_rows,
  };
}

/** The id of a stream entry starts with the milliseconds at which Redis added it. */
function secondsOf(entryId: string): number {
  return Math.floor(Number(entryId.split('-')[0]) / 1_000);
}

/** The oldest segments that are sealed and not settled. */
export async function listUnsettled(
  db: Queryable,
  page: { rowsMax: number },
): Promise<UnsettledSegment[]> {
  const { rows } = await db.query<UnsettledSegment>(
    `SELECT id AS "segmentId", stream, seq, rows, bytes, attempts, rejected, sealed_at AS "sealedAt",
       last_error AS "lastError"
     FROM segments WHERE state = 'sealed' ORDER BY sealed_at, id LIMIT $1`,
    [page.rowsMax],
  );
  return rows;
}

/** How much is sealed and not settled, in all streams. */
export async function countUnsettled(
  db: Queryable,
): Promise<{ count: number; rows: number; oldestSeconds: number }> {
  const { rows } = await db.query<{ count: number; rows: number; oldestSeconds: number }>(
    `SELECT count(*)::integer AS count, coalesce(sum(rows), 0)::bigint AS rows,
       coalesce(floor(extract(epoch FROM now() - min(sealed_at))), 0)::integer AS "oldestSeconds"
     FROM segments WHERE state = 'sealed'`,
  );
  return rows[0] ?? { count: 0, rows: 0, oldestSeconds: 0 };
}

/** A row that ClickHouse refused for its data. */
interface RejectedRow {
  segmentId: number;
  kind: Kind;
  row: Record<string, unknown>;
  reason: string;
  rejectedAt: Date;
}

/** The newest rejected rows. */
export async function listRejected(
  db: Queryable,
  page: { rowsMax: number },
): Promise<RejectedRow[]> {
  const { rows } = await db.query<RejectedRow>(
    `SELECT segment_id AS "segmentId", kind, row_json AS row, reason, rejected_at AS "rejectedAt"
     FROM rejected_rows ORDER BY rejected_at DESC, segment_id, month, position LIMIT $1`,
    [page.rowsMax],
  );
  return rows;
}

export async function countRejected(db: Queryable): Promise<number> {
  const { rows } = await db.query<{ count: number }>('SELECT count(*) AS count FROM rejected_rows');
  return rows[0]?.count ?? 0;
}
