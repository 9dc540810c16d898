import assert from 'node:assert/strict';
import type { Redis } from 'ioredis';
import type { Failpoint } from '../failpoints.ts';
import type { SpoolRows } from '../rows/compact.ts';
import { luaSource } from '../stores/redis.ts';
import {
  createGroupCommit,
  type Flush,
  type GroupCommit,
  type SendFlush,
  type Verdict,
} from './group-commit.ts';
import type { Identity } from './identity.ts';
import {
  blockFields,
  type Kind,
  kindLetters,
  kinds,
  numberedKey,
  postsKey,
  seenKey,
  streamKeys,
  streamName,
  type UsualOrLate,
} from './streams.ts';

/** The rows of one post and how to recognise it. Only a numbered post or one with a key may have no row. */
export type SpoolBlock = SpoolRows & { identity: Identity };

/** A Verdict, or `late-full` if the backlog of the late stream has no room. */
export type SpoolVerdict = Verdict | 'late-full';

/** Where accepted rows wait until they are settled: the Redis streams. */
export interface Spool {
  /**
   * Resolves when the rows are fsynced, or refused. Copies them before it returns.
   * @throws CoreError STORE_UNAVAILABLE, SHUTTING_DOWN.
   */
  append(kind: Kind, nodeId: number, block: SpoolBlock): Promise<SpoolVerdict>;
  /** Refuses new blocks and waits for those under way. */
  close(): Promise<void>;
}

interface SpoolOptions {
  redis: Redis;
  prefix: string;
  shards: number;
  /** Backlog bound of a usual stream, and of a late one. */
  bytesMax: number;
  lateBytesMax: number;
  /** A post with a row older than this is late. */
  lateDays: number;
  nowMs: () => number;
  /** How long the id of a post is kept at least. */
  idempotencySeconds: number;
  failpoint?: Failpoint | undefined;
}

/**
 * A post with a late row goes to the late stream as a whole. So it is one append, and a full backlog
 * refuses all of it. A node that mixes old rows into its posts delays its own rows and no others.
 */
export function createSpool(options: SpoolOptions): Spool {
  const { redis, shards, nowMs } = options;
  assert(shards > 0, 'there is at least one shard');
  const lateSeconds = options.lateDays * 86_400;
  redis.defineCommand('coreAppend', { lua: luaSource('append') });
  /** By shard, created when the first post needs it. */
  const commits: Record<UsualOrLate, Record<Kind, GroupCommit[]>> = {
    usual: { usage: [], session: [], outbound: [] },
    late: { usage: [], session: [], outbound: [] },
  };
  return {
    append(kind, nodeId, block) {
      const isLate = block.oldestSeconds < nowMs() / 1_000 - lateSeconds;
      const usualOrLate = isLate ? 'late' : 'usual';
      // A node always has the same shard, so that its idempotency keys are found again.
      const shard = nodeId % shards;
      const ofKind = commits[usualOrLate][kind];
      ofKind[shard] ??= createStreamCommit(options, shard, kind, usualOrLate);
      const line = lineOf(`${nodeId}${kindLetters[kind]}`, block);
      const { rows, bytes } = block;
      const verdict = ofKind[shard].submit({ line, rows, bytes });
      return isLate ? verdict.then(lateVerdict) : verdict;
    },
    async close() {
      const created = Object.values(commits).flatMap((byKind) =>
        kinds.flatMap((kind) => byKind[kind]),
      );
      await Promise.all(created.map((commit) => commit.close()));
    },
  };
}

function lateVerdict(verdict: Verdict): SpoolVerdict {
  return verdict === 'full' ? 'late-full' : verdict;
}

function createStreamCommit(
  options: SpoolOptions,
  shard: number,
  kind: Kind,
  usualOrLate: UsualOrLate,
): GroupCommit {
  const { redis, prefix, failpoint } = options;
  const keys = streamKeys(streamName(prefix, shard, kind, usualOrLate));
  const target: AppendTarget = {
    keys: [
      ...[keys.stream, keys.appended, keys.trimmed, keys.rows],
      ...[seenKey(prefix, shard, kind), postsKey(prefix), numberedKey(prefix)],
    ],
    field: blockFields[kind],
    bytesMax: usualOrLate === 'late' ? options.lateBytesMax : options.bytesMax,
    idempotencySeconds: options.idempotencySeconds,
  };
  const send: SendFlush = (flush) => appendFlush(redis, target, flush);
  return createGroupCommit(failpoint === undefined ? send : withFailpoints(send, failpoint));
}

function withFailpoints(send: SendFlush, failpoint: Failpoint): SendFlush {
  return async (flush) => {
    await failpoint('accept:before-append');
    const answers = await send(flush);
    await failpoint('accept:after-append');
    return answers;
  };
}

/** Seconds for which one set takes ids. A post a minute makes sets of 360, which Redis keeps small by default. */
const setSeconds = 21_600;
/** Seconds for which Core knows the body of an idempotency key at least, so that another one is a conflict. */
const keySecondsMax = 3_600;
/**
 * Gaps that a numbered stream may have, and streams that a node may have. Redis keeps both for ever, so a
 * node must not be able to make more and more of them.
 */
export const postGapsMax = 100;
export const postStreamsMax = 64;

interface AppendTarget {
  keys: readonly string[];
  field: string;
  bytesMax: number;
  idempotencySeconds: number;
}

interface AppendCommand {
  coreAppend(keys: number, ...args: (string | number | Buffer)[]): Promise<number[]>;
}

/**
 * Calls redis/append.lua. The rows of all posts are one argument, and what else is known of them is another:
 * an argument costs this process and Redis more than its contents.
 */
async function appendFlush(
  redis: Redis,
  { keys, field, bytesMax, idempotencySeconds }: AppendTarget,
  { posts, bytes }: Flush,
): Promise<number[]> {
  let lines = '';
  let rowsAll = 0;
  for (const { line, rows } of posts) {
    lines += line;
    rowsAll += rows;
  }
  const verdicts = await (redis as unknown as AppendCommand).coreAppend(
    keys.length,
    ...keys,
    bytesMax,
    idempotencySeconds,
    setSeconds,
    Math.min(idempotencySeconds, keySecondsMax),
    postGapsMax,
    postStreamsMax,
    field,
    bytes,
    rowsAll,
    lines,
  );
  return verdicts.length === 0 ? posts.map(() => 0) : verdicts;
}

/** What redis/append.lua reads of a post. `who` is its node and the letter of its kind. */
function lineOf(who: string, { identity, rows, bytes, oldestSeconds }: SpoolBlock): string {
  const hasTime = oldestSeconds !== Number.POSITIVE_INFINITY;
  const hours = hasTime ? Math.floor(oldestSeconds / setSeconds) : '-';
  const common = `${who}:${hours} ${identity.id} ${rows} ${bytes.length}`;
  const oldest = hasTime ? oldestSeconds : '-';
  switch (identity.way) {
    case 'body':
      return `b ${common}\n`;
    case 'key':
      return `k ${common} ${oldest} ${identity.key} ${identity.body}\n`;
    case 'number':
      return `n ${common} ${oldest} ${identity.stream} ${identity.number}\n`;
    case 'flush':
      return `f ${common}\n`;
  }
}
