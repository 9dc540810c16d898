import assert from 'node:assert/strict';
import type { Queryable } from '../stores/postgres.ts';

/** What the three ingest routes take, each with streams of its own. */
export const kinds = ['usage', 'outbound', 'session'] as const;
export type Kind = (typeof kinds)[number];

/**
 * The field of an entry that holds its blocks: usage rows are compact (compact.ts), others as packed.
 * An entry of usage rows as packed, from before there were compact ones, is read all the same.
 */
export const blockFields = { usage: 'u', outbound: 'b', session: 'b' } as const;

/**
 * Which rows a stream is for. Posts with rows of long ago go through streams of their own (spool.ts), as
 * many months are as many inserts; outbound usage has no dates.
 */
export type Age = 'usual' | 'late';
const lateKinds: readonly Kind[] = ['usage', 'session'];
const lateEnd = '-late';

/** Keys of one stream. The hash tag keeps them on one node of a Redis Cluster. */
export interface StreamKeys {
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
 * Redis key that says which hashes hold the idempotency keys; see redis/append.lua. Both streams of a
 * kind and shard share it: a post that is repeated may have become late since.
 */
export function seenKey(prefix: string, shard: number, kind: Kind): string {
  return `${streamName(prefix, shard, kind)}:seen`;
}

/**
 * Redis key of a stream, which is also its name in Postgres, e.g. `core:{s0}:usage` and
 * `core:{s0}:usage-late`.
 */
export function streamName(prefix: string, shard: number, kind: Kind, age: Age = 'usual'): string {
  return `${prefix}:{s${shard}}:${kind}${age === 'late' ? lateEnd : ''}`;
}

/** By the name that streamName gave. */
export function isLateStream(stream: string): boolean {
  return stream.endsWith(lateEnd);
}

/** A node's rows always go to the same shard, so that its idempotency keys are found again. */
export function shardOf(nodeId: number, shards: number): number {
  assert(shards > 0, 'there is at least one shard');
  return nodeId % shards;
}

/**
 * Makes the streams known to the workers before anything is appended to them. A stream is never
 * removed: when the number of shards shrinks, the workers still empty the former ones.
 */
export async function registerStreams(
  db: Queryable,
  prefix: string,
  shards: number,
): Promise<void> {
  const rows = Array.from({ length: shards }, (_, shard) => shard).flatMap((shard) => [
    ...kinds.map((kind) => ({ kind, shard, age: 'usual' as const })),
    ...lateKinds.map((kind) => ({ kind, shard, age: 'late' as const })),
  ]);
  await db.query(
    `INSERT INTO streams (stream, kind, shard)
     SELECT * FROM unnest($1::text[], $2::text[], $3::integer[])
     ON CONFLICT (stream) DO NOTHING`,
    [
      rows.map(({ shard, kind, age }) => streamName(prefix, shard, kind, age)),
      rows.map(({ kind }) => kind),
      rows.map(({ shard }) => shard),
    ],
  );
}
