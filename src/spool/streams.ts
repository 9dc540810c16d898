import type { Queryable } from '../stores/postgres.ts';

/** What a post can report. Each kind has its own streams. */
export const kinds = ['usage', 'outbound', 'session'] as const;
export type Kind = (typeof kinds)[number];

/**
 * Each shard has a usual stream of every kind, and a late stream of the kinds whose rows have a time.
 * Posts with old rows go through the late stream: each month of a segment is an insert of its own,
 * and the rows behind it would have to wait.
 */
export type UsualOrLate = 'usual' | 'late';
const lateKinds: readonly Kind[] = ['usage', 'session'];
const lateEnd = '-late';

/**
 * The field of a stream entry that holds its blocks. Usage is compact in the field `u`. An earlier Core
 * stored it packed in the field `b`, which is still read.
 */
export const blockFields = { usage: 'u', outbound: 'b', session: 'b' } as const;

/** Tells apart the ids of posts of the three kinds in Redis. */
export const kindLetters = { usage: 'u', outbound: 'o', session: 's' } as const;

/** The Redis keys of one stream. */
interface StreamKeys {
  stream: string;
  /** Bytes ever appended, and ever trimmed; the difference is the backlog. */
  appended: string;
  trimmed: string;
  /** Rows ever appended. */
  rows: string;
}

export function streamKeys(stream: string): StreamKeys {
  return {
    stream,
    appended: `${stream}:appended`,
    trimmed: `${stream}:trimmed`,
    rows: `${stream}:rows`,
  };
}

/**
 * The Redis key that says which hashes hold the idempotency keys (redis/append.lua). The usual and the late
 * stream of a kind and shard share it, because a post may have become late when it is repeated.
 */
export function seenKey(prefix: string, shard: number, kind: Kind): string {
  return `${streamName(prefix, shard, kind)}:seen`;
}

/**
 * First part of the Redis keys of the sets that hold the ids of posts (redis/append.lua). All shards share
 * them, so Core knows a post again after a change of their number. A Redis Cluster could not run the script.
 */
export function postsKey(prefix: string): string {
  return `${prefix}:posts`;
}

/** First part of the Redis keys that say what has come of a node's numbered streams, for all shards. */
export function numberedKey(prefix: string): string {
  return `${prefix}:numbered`;
}

/** The Redis key of a stream, and its name in Postgres: `core:{s0}:usage`, `core:{s0}:usage-late`. */
export function streamName(
  prefix: string,
  shard: number,
  kind: Kind,
  usualOrLate: UsualOrLate = 'usual',
): string {
  return `${prefix}:{s${shard}}:${kind}${usualOrLate === 'late' ? lateEnd : ''}`;
}

/** Takes a name that streamName gave. */
export function isLateStream(stream: string): boolean {
  return stream.endsWith(lateEnd);
}

/**
 * Makes the streams known to the workers before anything is appended to them. A stream is never removed: if
 * the number of shards shrinks, the workers still empty the former ones.
 */
export async function registerStreams(
  db: Queryable,
  prefix: string,
  shards: number,
): Promise<void> {
  const rows = Array.from({ length: shards }, (_, shard) => shard).flatMap((shard) => [
    ...kinds.map((kind) => ({ kind, shard, name: streamName(prefix, shard, kind, 'usual') })),
    ...lateKinds.map((kind) => ({ kind, shard, name: streamName(prefix, shard, kind, 'late') })),
  ]);
  await db.query(
    `INSERT INTO streams (stream, kind, shard)
     SELECT * FROM unnest($1::text[], $2::text[], $3::integer[])
     ON CONFLICT (stream) DO NOTHING`,
    [rows.map(({ name }) => name), rows.map(({ kind }) => kind), rows.map(({ shard }) => shard)],
  );
}
