import t, { type Test } from 'tap';
import { createSpool, type SpoolBlock } from '../../src/spool/spool.ts';
import { streamName } from '../../src/spool/streams.ts';
import { connectRedis, createRedis } from '../../src/stores/redis.ts';
import { byKey } from '../support/identities.ts';
import { freshStores } from '../support/stores.ts';

const { redisUrl, redisPrefix: prefix } = await freshStores(t);
const redis = createRedis(redisUrl);
t.teardown(() => redis.disconnect());
await connectRedis(redis);
const common = { redis, prefix, lateBytesMax: 1e9, lateDays: 60, nowMs: Date.now };

/** An outbound row: the spool does not look into it, and it has no time. */
function block(name: string, length: number, body = name): SpoolBlock {
  const bytes = Buffer.alloc(length, name);
  const identity = byKey(name, body);
  return { identity, rows: 1, bytes, oldestSeconds: Number.POSITIVE_INFINITY };
}

async function stored(): Promise<string[]> {
  const entries = await redis.xrange(streamName(prefix, 0, 'outbound'), '-', '+');
  return entries.map(([, fields]) => fields[5] ?? '');
}

t.test('a flush appends only the posts with the verdict stored', async (t) => {
  const options = { ...common, shards: 1, bytesMax: 20, idempotencySeconds: 60 };
  const earlier = createSpool(options);
  await earlier.append('outbound', 1, block('a', 3));
  await earlier.close();
  const spool = createSpool(options);
  t.teardown(() => spool.close());
  // The first one is a flush by itself, because no flush came before it. The others are the next flush.
  const verdicts = await Promise.all([
    spool.append('outbound', 1, block('b', 2)),
    spool.append('outbound', 1, block('c', 4)),
    spool.append('outbound', 1, block('a', 3)),
    spool.append('outbound', 1, block('a', 5, 'another body')),
    spool.append('outbound', 1, block('d', 1)),
    spool.append('outbound', 1, block('e', 11)),
    spool.append('outbound', 1, block('f', 10)),
  ]);
  t.same(verdicts, ['stored', 'stored', 'duplicate', 'conflict', 'stored', 'full', 'stored']);
  t.same(await stored(), ['aaa', 'bb', 'ccccdffffffffff']);
  t.same(await redis.mget(`${streamName(prefix, 0, 'outbound')}:appended`), ['20']);
  await spool.append('outbound', 1, block('c', 4));
  t.equal((await stored()).length, 3, 'a duplicate writes nothing');
});

let spools = 0;

/** A spool with Redis keys of its own, and what Redis holds of its idempotency keys. */
function startSpool(t: Test) {
  spools += 1;
  const own = `${prefix}-${spools}`;
  const bounds = { shards: 1, bytesMax: 1e9, idempotencySeconds: 3_600 };
  const spool = createSpool({ ...common, ...bounds, prefix: own });
  t.teardown(() => spool.close());
  const stream = streamName(own, 0, 'outbound');
  const seen = `${stream}:seen`;
  return {
    seen,
    append: (one: SpoolBlock) => spool.append('outbound', 1, one),
    rows: async () => Number(await redis.get(`${stream}:rows`)),
    number: async () => Number(await redis.hget(seen, 'number')),
    /** As if the newest hash were this old. */
    ageBy: async (ageSeconds: number) => {
      const [now] = await redis.time();
      await redis.hset(seen, 'since', Number(now) - ageSeconds);
    },
  };
}

t.test(
  'the body of a key is known for two changes of the hash, and forgotten at the third',
  async (t) => {
    const { append, ageBy, number, rows, seen } = startSpool(t);
    await append(block('a', 1));
    t.equal(await number(), 1);
    const seconds = await redis.ttl(`${seen}:1`);
    t.ok(seconds > 3_600 && seconds <= 5_400, 'Redis expires the hash later by itself');
    await ageBy(1_799);
    await append(block('b', 1));
    t.equal(await number(), 1, 'the first half of the time is not over');
    for (const number of [2, 3]) {
      await ageBy(1_801);
      t.equal(await append(block('a', 1)), 'duplicate');
      t.equal(await redis.exists(`${seen}:${number}`), 0, 'a duplicate is written nowhere');
      t.equal(await append(block('a', 1, 'another body')), 'conflict');
      t.equal(await redis.exists(`${seen}:1`), 1);
    }
    t.equal(await rows(), 2);
    await ageBy(1_801);
    t.equal(await append(block('a', 1)), 'duplicate', 'the id of the post is kept for longer');
    t.equal(await redis.exists(`${seen}:1`), 0);
    t.equal(await number(), 4);
    t.equal(await append(block('a', 1, 'another body')), 'stored', 'no 200 may lose it');
    t.equal(await rows(), 3);
    t.equal((await redis.hkeys(`${seen}:4`)).length, 1);
  },
);

t.test('a clock that jumps forgets no key early', async (t) => {
  const { append, ageBy, number, rows } = startSpool(t);
  await append(block('a', 1));
  await ageBy(-86_400);
  await append(block('a', 1));
  t.equal(await number(), 1, 'the clock jumped back by a day');
  await ageBy(30 * 86_400);
  await append(block('a', 1));
  t.equal(await number(), 2, 'the clock jumped ahead by a month');
  t.equal(await rows(), 1);
});

t.test('a hash lives at least as long as its youngest key is kept', async (t) => {
  const { append, rows, seen } = startSpool(t);
  await append(block('a', 1));
  // As if the clock had been put back while the script wrote to the hash.
  await redis.expire(`${seen}:1`, 100);
  await append(block('b', 1));
  t.ok((await redis.ttl(`${seen}:1`)) >= 3_600);
  t.equal(await rows(), 2);
});

t.test('more posts than a flush can hold', async (t) => {
  const { append, rows } = startSpool(t);
  const names = Array.from({ length: 2_500 }, (_, index) => `post-${index}`);
  await Promise.all(names.map((name) => append(block(name, 3))));
  t.equal(await rows(), 2_500);
  await Promise.all([...names, 'one more'].map((name) => append(block(name, 3))));
  t.equal(await rows(), 2_501);
});

t.test('posts with the same key in one flush', async (t) => {
  const { append, rows } = startSpool(t);
  const flush = [
    append(block('by itself', 1)),
    append(block('twice', 2)),
    append(block('twice', 2)),
    append(block('twice', 2, 'another body')),
    append(block('once', 3)),
  ];
  t.same(await Promise.all(flush), ['stored', 'stored', 'duplicate', 'conflict', 'stored']);
  t.equal(await rows(), 3);
});
