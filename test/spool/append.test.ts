import t, { type Test } from 'tap';
import type { Block } from '../../src/spool/group-commit.ts';
import { createSpool } from '../../src/spool/spool.ts';
import { streamName } from '../../src/spool/streams.ts';
import { connectRedis, createRedis } from '../../src/stores/redis.ts';
import { freshStores } from '../support/stores.ts';

const { redisUrl, redisPrefix: prefix } = await freshStores(t);
const redis = createRedis(redisUrl);
t.teardown(() => redis.disconnect());
await connectRedis(redis);
const common = { redis, prefix, lateBytesMax: 1e9, lateDays: 60, nowMs: Date.now };

/** Outbound rows, which are opaque to the spool: they have no dates. */
function block(name: string, bytes: number, fingerprint = name): Block {
  return {
    key: name,
    fingerprint,
    rows: 1,
    bytes: Buffer.alloc(bytes, name),
  };
}

async function stored(): Promise<string[]> {
  const entries = await redis.xrange(streamName(prefix, 0, 'outbound'), '-', '+');
  return entries.map(([, fields]) => fields[5] ?? '');
}

t.test(
  'of a flush whose requests fare differently only the stored ones are appended',
  async (t) => {
    const options = { ...common, shards: 1, bytesMax: 20, idempotencySeconds: 60 };
    const earlier = createSpool(options);
    await earlier.append('outbound', 1, block('a', 3));
    await earlier.close();
    const spool = createSpool(options);
    t.teardown(() => spool.close());
    // Nothing came before the first of these, so it is a flush by itself; the others are the next one,
    // together.
    const results = await Promise.allSettled([
      spool.append('outbound', 1, block('b', 2)),
      spool.append('outbound', 1, block('c', 4)),
      spool.append('outbound', 1, block('a', 3)),
      spool.append('outbound', 1, block('a', 5, 'another body')),
      spool.append('outbound', 1, block('d', 1)),
      spool.append('outbound', 1, block('e', 11)),
      spool.append('outbound', 1, block('f', 10)),
    ]);
    t.same(
      results.map((result) => (result.status === 'rejected' ? result.reason.code : 'stored')),
      ['stored', 'stored', 'stored', 'IDEMPOTENCY_KEY_REUSED', 'stored', 'BACKLOG_FULL', 'stored'],
    );
    t.same(await stored(), ['aaa', 'bb', 'ccccdffffffffff']);
    t.same(await redis.mget(`${streamName(prefix, 0, 'outbound')}:appended`), ['20']);
    await spool.append('outbound', 1, block('c', 4));
    t.equal((await stored()).length, 3, 'where nothing is stored nothing is written');
  },
);

/** A spool with a stream of its own, and what stands in Redis of its keys. */
function startSpool(t: Test, shard: number, seconds: number) {
  const options = { ...common, shards: shard + 1, bytesMax: 1e9, idempotencySeconds: seconds };
  const spool = createSpool(options);
  t.teardown(() => spool.close());
  const stream = streamName(prefix, shard, 'outbound');
  const seen = `${stream}:seen`;
  return {
    seen,
    append: (one: Block) => spool.append('outbound', shard, one),
    rows: async () => Number(await redis.get(`${stream}:rows`)),
    number: async () => Number(await redis.hget(seen, 'number')),
    /** As if the newest hash had been begun so many seconds before now. */
    ageBy: async (ageSeconds: number) => {
      const [now] = await redis.time();
      await redis.hset(seen, 'since', Number(now) - ageSeconds);
    },
  };
}

t.test('a key is known for two changes of the hash at least, and then forgotten', async (t) => {
  const { append, ageBy, number, rows, seen } = startSpool(t, 1, 3_600);
  await append(block('a', 1));
  t.equal(await number(), 1);
  const seconds = await redis.ttl(`${seen}:1`);
  t.ok(seconds > 3_600 && seconds <= 5_400, 'Redis forgets it by itself, later');
  await ageBy(1_799);
  await append(block('b', 1));
  t.equal(await number(), 1, 'half of the time is not over');
  for (const number of [2, 3]) {
    await ageBy(1_801);
    await append(block('a', 1));
    t.equal(await redis.exists(`${seen}:${number}`), 0, 'a copy is written nowhere');
    await t.rejects(append(block('a', 1, 'another body')), { code: 'IDEMPOTENCY_KEY_REUSED' });
    t.equal(await redis.exists(`${seen}:1`), 1);
  }
  t.equal(await rows(), 2);
  await ageBy(1_801);
  await append(block('a', 1));
  t.equal(await redis.exists(`${seen}:1`), 0);
  t.equal(await rows(), 3);
  t.equal(await number(), 4);
  t.same(await redis.hkeys(`${seen}:4`), ['a']);
});

t.test('a clock that jumps forgets no key early', async (t) => {
  const { append, ageBy, number, rows } = startSpool(t, 2, 3_600);
  await append(block('a', 1));
  await ageBy(-86_400);
  await append(block('a', 1));
  t.equal(await number(), 1, 'back by a day');
  await ageBy(30 * 86_400);
  await append(block('a', 1));
  t.equal(await number(), 2, 'ahead by a month');
  t.equal(await rows(), 1);
});

t.test('a hash outlives its youngest key by the seconds', async (t) => {
  const { append, rows, seen } = startSpool(t, 5, 3_600);
  await append(block('a', 1));
  // As after a clock that was put back while the hash was written to.
  await redis.expire(`${seen}:1`, 100);
  await append(block('b', 1));
  t.ok((await redis.ttl(`${seen}:1`)) >= 3_600);
  t.equal(await rows(), 2);
});

t.test('as many requests as a flush can hold, and more', async (t) => {
  const { append, rows } = startSpool(t, 3, 3_600);
  const names = Array.from({ length: 2_500 }, (_, index) => `post-${index}`);
  await Promise.all(names.map((name) => append(block(name, 3))));
  t.equal(await rows(), 2_500);
  await Promise.all([...names, 'one more'].map((name) => append(block(name, 3))));
  t.equal(await rows(), 2_501);
});

t.test('two posts of one key in one flush', async (t) => {
  const { append, rows } = startSpool(t, 4, 3_600);
  const flush = [
    append(block('by itself', 1)),
    append(block('twice', 2)),
    append(block('twice', 2)),
    append(block('twice', 2, 'another body')),
    append(block('once', 3)),
  ];
  const results = await Promise.allSettled(flush);
  t.same(
    results.map((result) => (result.status === 'rejected' ? result.reason.code : 'stored')),
    ['stored', 'stored', 'stored', 'IDEMPOTENCY_KEY_REUSED', 'stored'],
  );
  t.equal(await rows(), 3);
});
