import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';
import type { Failpoint } from '../failpoints.ts';
import { luaSource } from '../stores/redis.ts';
import { compactUsage } from './compact.ts';
import {
  type Block,
  createGroupCommit,
  type Flush,
  type GroupCommit,
  type SendFlush,
} from './group-commit.ts';
import { blockFields, type Kind, shardOf, streamKeys, streamName } from './streams.ts';

/** Where accepted blocks become durable: the Redis streams. */
export interface Spool {
  /**
   * Resolves once the block is fsynced, or was before. Its rows are packed and at least one; usage
   * rows are stored compact.
   * @throws CoreError IDEMPOTENCY_KEY_REUSED, BACKLOG_FULL, STORE_UNAVAILABLE, SHUTTING_DOWN.
   */
  append(kind: Kind, nodeId: number, block: Block): Promise<void>;
  /** Refuses new blocks and waits for those under way. */
  close(): Promise<void>;
}

export function createSpool(options: {
  redis: Redis;
  prefix: string;
  shards: number;
  bytesMax: number;
  idempotencySeconds: number;
  failpoint?: Failpoint | undefined;
}): Spool {
  const { redis, prefix, shards, failpoint } = options;
  redis.defineCommand('coreAppend', { lua: luaSource('append') });
  /** By shard. */
  const commits: Record<Kind, GroupCommit[]> = { usage: [], session: [], outbound: [] };

  const commitOf = (kind: Kind, shard: number): GroupCommit => {
    const known = commits[kind][shard];
    if (known !== undefined) return known;
    const keys = streamKeys(streamName(prefix, shard, kind));
    const names = [keys.stream, keys.appended, keys.trimmed, keys.rows, keys.seen];
    const send: SendFlush = (flush) =>
      append(redis, { keys: names, field: blockFields[kind] }, flush, options);
    const created = createGroupCommit(
      failpoint === undefined ? send : withFailpoints(send, failpoint),
    );
    commits[kind][shard] = created;
    return created;
  };

  return {
    async append(kind, nodeId, block) {
      const commit = commitOf(kind, shardOf(nodeId, shards));
      const bytes = kind === 'usage' ? compactUsage(block.bytes) : block.bytes;
      const { key, fingerprint, rows } = block;
      const verdict = await commit.submit({ key, fingerprint, rows, bytes });
      if (verdict === 'stored' || verdict === 'duplicate') return;
      if (verdict === 'conflict') {
        throw new CoreError(
          'IDEMPOTENCY_KEY_REUSED',
          'This Idempotency-Key was used with another body',
        );
      }
      throw new CoreError('BACKLOG_FULL', 'The backlog is full, try again later', {
        headers: { 'Retry-After': '5' },
      });
    },
    async close() {
      const opened = Object.values(commits).flat();
      await Promise.all(opened.map((commit) => commit.close()));
    },
  };
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
  { keys, field }: { keys: readonly string[]; field: string },
  { requests, bytes }: Flush,
  options: { bytesMax: number; idempotencySeconds: number },
): Promise<number[]> {
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
    options.bytesMax,
    options.idempotencySeconds,
    field,
    bytes,
    lines,
    lengths,
    rowsAll,
  );
  return verdicts.length === 0 ? requests.map(() => 0) : verdicts;
}
