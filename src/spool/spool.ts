import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';
import type { Failpoint } from '../failpoints.ts';
import { compactUsage, oldestCompactedSeconds } from '../rows/compact.ts';
import { oldestSessionSeconds } from '../rows/pack.ts';
import { luaSource } from '../stores/redis.ts';
import {
  type Block,
  createGroupCommit,
  type Flush,
  type GroupCommit,
  type SendFlush,
} from './group-commit.ts';
import {
  type Age,
  blockFields,
  type Kind,
  kinds,
  seenKey,
  shardOf,
  streamKeys,
  streamName,
} from './streams.ts';

/**
 * Where accepted blocks become durable: the Redis streams.
 *
 * A block with a row of more than `lateDays` ago goes to the late stream of its kind and shard. It goes
 * there whole: then it is one entry and one append, and a bound that is reached refuses all of it. So a
 * node that mixes old rows into its posts delays its own rows and nobody else's.
 */
export interface Spool {
  /**
   * Resolves once the block is fsynced, or was before. Its rows are packed and at least one; usage
   * rows are stored compact.
   * @throws CoreError IDEMPOTENCY_KEY_REUSED, BACKLOG_FULL, LATE_BACKLOG_FULL, STORE_UNAVAILABLE,
   * SHUTTING_DOWN.
   */
  append(kind: Kind, nodeId: number, block: Block): Promise<void>;
  /** Refuses new blocks and waits for those under way. */
  close(): Promise<void>;
}

export function createSpool(options: {
  redis: Redis;
  prefix: string;
  shards: number;
  /** Backlog bounds of a usual stream and of a late one. */
  bytesMax: number;
  lateBytesMax: number;
  /** A row that is older than this is late. */
  lateDays: number;
  nowMs: () => number;
  idempotencySeconds: number;
  failpoint?: Failpoint | undefined;
}): Spool {
  const { redis, prefix, shards, nowMs, failpoint } = options;
  const lateSeconds = options.lateDays * 86_400;
  redis.defineCommand('coreAppend', { lua: luaSource('append') });
  /** By shard. */
  const commits: Record<Age, Record<Kind, GroupCommit[]>> = {
    usual: { usage: [], session: [], outbound: [] },
    late: { usage: [], session: [], outbound: [] },
  };

  const commitOf = (age: Age, kind: Kind, shard: number): GroupCommit => {
    const known = commits[age][kind][shard];
    if (known !== undefined) return known;
    const keys = streamKeys(streamName(prefix, shard, kind, age));
    const into = {
      keys: [keys.stream, keys.appended, keys.trimmed, keys.rows, seenKey(prefix, shard, kind)],
      field: blockFields[kind],
      bytesMax: age === 'late' ? options.lateBytesMax : options.bytesMax,
      idempotencySeconds: options.idempotencySeconds,
    };
    const send: SendFlush = (flush) => append(redis, into, flush);
    const created = createGroupCommit(
      failpoint === undefined ? send : withFailpoints(send, failpoint),
    );
    commits[age][kind][shard] = created;
    return created;
  };

  return {
    async append(kind, nodeId, block) {
      const bytes = kind === 'usage' ? compactUsage(block.bytes) : block.bytes;
      const age = oldestSeconds(kind, bytes) < nowMs() / 1_000 - lateSeconds ? 'late' : 'usual';
      const { key, fingerprint, rows } = block;
      const commit = commitOf(age, kind, shardOf(nodeId, shards));
      const verdict = await commit.submit({ key, fingerprint, rows, bytes });
      if (verdict === 'stored' || verdict === 'duplicate') return;
      if (verdict === 'conflict') {
        throw new CoreError(
          'IDEMPOTENCY_KEY_REUSED',
          'This Idempotency-Key was used with another body',
        );
      }
      throw backlogFull(age);
    },
    async close() {
      const opened = Object.values(commits).flatMap((ofAge) => kinds.flatMap((of) => ofAge[of]));
      await Promise.all(opened.map((commit) => commit.close()));
    },
  };
}

/** Time of the oldest row of a block. Rows of usage are those that compactUsage was given last. */
function oldestSeconds(kind: Kind, bytes: Buffer): number {
  if (kind === 'usage') return oldestCompactedSeconds();
  return kind === 'session' ? oldestSessionSeconds(bytes) : Number.POSITIVE_INFINITY;
}

function backlogFull(age: Age): CoreError {
  if (age === 'usual') {
    const headers = { 'Retry-After': '5' };
    return new CoreError('BACKLOG_FULL', 'The backlog is full, try again later', { headers });
  }
  const message = 'The backlog of old dates is full, try again later; newer posts may be taken';
  return new CoreError('LATE_BACKLOG_FULL', message, { headers: { 'Retry-After': '30' } });
}

function withFailpoints(send: SendFlush, failpoint: Failpoint): SendFlush {
  return async (flush) => {
    await failpoint('accept:before-append');
    const answers = await send(flush);
    await failpoint('accept:after-append');
    return answers;
  };
}

interface AppendCommand {
  coreAppend(keys: number, ...args: (string | number | Buffer)[]): Promise<number[]>;
}

/**
 * One argument for the rows of all requests, one for their keys, one for their lengths: what an
 * argument costs here and in Redis is more than what is in it.
 */
async function append(
  redis: Redis,
  into: {
    keys: readonly string[];
    field: string;
    bytesMax: number;
    idempotencySeconds: number;
  },
  { requests, bytes }: Flush,
): Promise<number[]> {
  const { keys, field, bytesMax, idempotencySeconds } = into;
  let lines = '';
  let lengths = '';
  let rowsAll = 0;
  for (const { key, fingerprint, rows, bytesLength } of requests) {
    lines += `${key} ${fingerprint}\n`;
    lengths += `${rows} ${bytesLength}\n`;
    rowsAll += rows;
  }
  const verdicts = await (redis as unknown as AppendCommand).coreAppend(
    keys.length,
    ...keys,
    bytesMax,
    idempotencySeconds,
    field,
    bytes,
    lines,
    lengths,
    rowsAll,
  );
  return verdicts.length === 0 ? requests.map(() => 0) : verdicts;
}
