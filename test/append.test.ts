import t from 'tap';
import type { Block } from '../src/ingest/group-commit.ts';
import { createSpool } from '../src/ingest/spool.ts';
import { streamName } from '../src/ingest/streams.ts';
import { connectRedis, createRedis } from '../src/stores/redis.ts';
import { freshStores } from './support/stores.ts';

const { redisUrl, redisPrefix: prefix } = await freshStores(t);
const redis = createRedis(redisUrl);
t.teardown(() => redis.disconnect());
await connectRedis(redis);

function block(name: string, bytes: number, fingerprint = name): Block {
  return {
    key: `${prefix}:{s0}:seen:${name}`,
    fingerprint,
    rows: 1,
    bytes: Buffer.alloc(bytes, name),
  };
}

async function stored(): Promise<string[]> {
  const entries = await redis.xrange(streamName(prefix, 0, 'session'), '-', '+');
  return entries.map(([, fields]) => fields[5] ?? '');
}

t.test(
  'of a flush whose requests fare differently only the stored ones are appended',
  async (t) => {
    const options = { redis, prefix, shards: 1, bytesMax: 20, idempotencySeconds: 60 };
    const spool = createSpool(options);
    t.teardown(() => spool.close());
    await spool.append('session', 1, block('a', 3));
    // The first of these is a flush by itself, and the others are the next one, together.
    const results = await Promise.allSettled([
      spool.append('session', 1, block('b', 2)),
      spool.append('session', 1, block('c', 4)),
      spool.append('session', 1, block('a', 3)),
      spool.append('session', 1, block('a', 5, 'another body')),
      spool.append('session', 1, block('d', 1)),
      spool.append('session', 1, block('e', 11)),
      spool.append('session', 1, block('f', 10)),
    ]);
    t.same(
      results.map((result) => (result.status === 'rejected' ? result.reason.code : 'stored')),
      ['stored', 'stored', 'stored', 'IDEMPOTENCY_KEY_REUSED', 'stored', 'BACKLOG_FULL', 'stored'],
    );
    t.same(await stored(), ['aaa', 'bb', 'ccccdffffffffff']);
    t.same(await redis.mget(`${streamName(prefix, 0, 'session')}:appended`), ['20']);
    await spool.append('session', 1, block('c', 4));
    t.equal((await stored()).length, 3, 'where nothing is stored nothing is written');
  },
);
