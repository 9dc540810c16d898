import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import type { Verdict } from '../../src/spool/group-commit.ts';
import { createSpool, postGapsMax, postStreamsMax } from '../../src/spool/spool.ts';
import { type Kind, kinds, numberedKey, postsKey, streamName } from '../../src/spool/streams.ts';
import { connectRedis, createRedis } from '../../src/stores/redis.ts';
import { byBody, byKey, byNumber } from '../support/identities.ts';
import { freshStores } from '../support/stores.ts';

const { redisUrl, redisPrefix: prefix } = await freshStores(t);
const redis = createRedis(redisUrl);
t.teardown(() => redis.disconnect());
await connectRedis(redis);

const windowSeconds = 86_400;
const shards = [1, 2, 5];
/** Spools that differ in the number of shards, as before and after a change of the setting. */
const spools = shards.map((count) =>
  createSpool({
    ...{ redis, prefix, shards: count, bytesMax: 1e9, lateBytesMax: 1e9, lateDays: 36_500 },
    ...{ idempotencySeconds: windowSeconds, nowMs: Date.now },
  }),
);
t.teardown(() => Promise.all(spools.map((spool) => spool.close())));

const nowSeconds = Math.floor(Date.now() / 1_000);
let nodes = 0;

/** A node that no test before this one has used. */
function startNode() {
  nodes += 1;
  const nodeId = nodes;
  const stream = randomUUID();
  return {
    nodeId,
    stream,
    /** The greatest number of the stream, and its gaps. */
    async state(): Promise<string> {
      const state = await redis.hget(`${numberedKey(prefix)}:${nodeId}`, stream);
      return (state ?? '').replace(/( \d+){4}/, '');
    },
    /** As if everything of the stream had come this long ago. */
    async age(seconds: number): Promise<void> {
      const hash = `${numberedKey(prefix)}:${nodeId}`;
      const [greatest, since1, before1, since2, before2, gaps] =
        (await redis.hget(hash, stream))?.split(' ') ?? [];
      const times = [Number(since1) - seconds, before1, Number(since2) - seconds, before2];
      await redis.hset(hash, stream, [greatest, ...times, gaps ?? ''].join(' ').trim());
    },
    async post(number: number, given: Partial<Sent> = {}): Promise<Verdict | 'late-full'> {
      const { body, kind, ageSeconds, rows, shardsIndex, of } = { ...usual, ...given };
      const spool = spools[shardsIndex];
      const hasTime = kind !== 'outbound' && rows > 0;
      const verdict = await spool?.append(kind, nodeId, {
        identity: byNumber(of ?? stream, number, body ?? `${number}`),
        rows,
        bytes: Buffer.alloc(rows, 'x'),
        oldestSeconds: hasTime ? nowSeconds - ageSeconds : Number.POSITIVE_INFINITY,
      });
      return verdict ?? 'full';
    },
  };
}

interface Sent {
  body: string | undefined;
  kind: Kind;
  ageSeconds: number;
  rows: number;
  shardsIndex: number;
  /** Another stream of the node. */
  of: string | undefined;
}
const usual: Sent = {
  ...{ body: undefined, kind: 'usage', ageSeconds: 60, rows: 1, shardsIndex: 0, of: undefined },
};

/** What Core does once ids are forgotten. */
async function forgetIds(): Promise<void> {
  const keys = await redis.keys(`${postsKey(prefix)}:*`);
  if (keys.length > 0) await redis.unlink(...keys);
}

async function rowsStored(): Promise<number> {
  const names = kinds.flatMap((kind) =>
    Array.from({ length: 5 }, (_, shard) => `${streamName(prefix, shard, kind)}:rows`),
  );
  const counts = await redis.mget(...names);
  return counts.reduce((sum, count) => sum + Number(count), 0);
}

t.test('numbers in any order, each once, in any kind and with any shards', async () => {
  const step = fc.record({
    number: fc.integer({ min: 1, max: 30 }),
    kind: fc.constantFrom(...kinds),
    shardsIndex: fc.nat({ max: shards.length - 1 }),
    rows: fc.integer({ min: 0, max: 2 }),
    /** Whether all ids are forgotten before it, as after any time. */
    isAfterWindow: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const { post, state, age } = startNode();
      const before = await rowsStored();
      /** By number: as it was sent first. */
      const sent = new Map<number, { kind: Kind; rows: number }>();
      for (const { number, kind, shardsIndex, rows, isAfterWindow } of steps) {
        if (isAfterWindow)
          await Promise.all([forgetIds(), sent.size > 0 && age(windowSeconds + 1)]);
        const first = sent.get(number);
        const verdict = await post(number, {
          ...(first ?? { kind, rows }),
          shardsIndex,
          ageSeconds: 2 * windowSeconds,
        });
        if (verdict !== (first === undefined ? 'stored' : 'duplicate')) return false;
        if (first === undefined) sent.set(number, { kind, rows });
      }
      const rowsExpected = [...sent.values()].reduce((sum, { rows }) => sum + rows, 0);
      if ((await rowsStored()) - before !== rowsExpected) return false;
      return (await state()) === stateOf([...sent.keys()]);
    }),
    { numRuns: 200 },
  );
});

/** The state of a stream of which these numbers have come, by a plain model. */
function stateOf(numbers: number[]): string {
  const come = new Set(numbers);
  const greatest = Math.max(0, ...numbers);
  const gaps: [number, number][] = [];
  for (let number = 1; number < greatest; number += 1) {
    if (come.has(number)) continue;
    const last = gaps.at(-1);
    if (last !== undefined && last[1] === number - 1) last[1] = number;
    else gaps.push([number, number]);
  }
  const text = gaps.map(([from, to]) => `${from}-${to}`).join(',');
  return numbers.length === 0 ? '' : `${greatest}${text === '' ? '' : ` ${text}`}`;
}

t.test('the same number with another body is a conflict', async (t) => {
  for (const kind of kinds) {
    for (const ageSeconds of [60, 30 * windowSeconds]) {
      const { post } = startNode();
      t.equal(await post(1, { kind, ageSeconds }), 'stored');
      t.equal(await post(1, { kind, ageSeconds }), 'duplicate');
      const other = { kind, ageSeconds, body: 'another' };
      t.equal(await post(1, other), 'conflict', `${kind}, rows of ${ageSeconds} s ago`);
    }
  }
});

t.test('what Core can know of a number that comes again later', async (t) => {
  const { post, age } = startNode();
  const old = { ageSeconds: 9 * windowSeconds };
  const other = { ...old, body: 'another' };
  t.equal(await post(1, old), 'stored');
  await age(windowSeconds / 2);
  t.equal(await post(2, old), 'stored');
  t.equal(await post(1, other), 'conflict', 'its id is kept');
  await age(windowSeconds / 2 + 1);
  t.equal(await post(3, old), 'stored');
  await forgetIds();
  t.equal(await post(1, old), 'duplicate', 'stored before the window, so nothing shows its body');
  t.equal(await post(2, other), 'conflict', 'stored within it, so its id would be known');
  await age(5 * windowSeconds);
  for (const number of [1, 2, 3]) t.equal(await post(number, old), 'duplicate', 'a silent node');
});

t.test('a node that counts again after a restore of its disk gets a conflict', async (t) => {
  const { post, age } = startNode();
  for (const number of [1, 2, 3]) t.equal(await post(number), 'stored');
  await Promise.all([forgetIds(), age(3 * windowSeconds)]);
  const newer = await post(2, { body: 'another', ageSeconds: 60 });
  t.equal(newer, 'conflict', 'rows of a minute ago cannot be those of a post of three days ago');
});

t.test('a post is not recorded if the backlog has no room for it', async (t) => {
  const { nodeId, post, state } = startNode();
  const tight = createSpool({
    ...{ redis, prefix, shards: 1, bytesMax: 1, lateBytesMax: 1, lateDays: 36_500 },
    ...{ idempotencySeconds: windowSeconds, nowMs: Date.now },
  });
  t.teardown(() => tight.close());
  const bytes = Buffer.alloc(1_000_000);
  for (const identity of [byNumber(randomUUID(), 1, 'a'), byBody('a'), byKey('a')]) {
    const block = { identity, rows: 1, bytes, oldestSeconds: nowSeconds };
    t.equal(await tight.append('usage', nodeId, block), 'full');
    t.equal(await tight.append('usage', nodeId, block), 'full');
    t.equal(await spools[0]?.append('usage', nodeId, block), 'stored', identity.way);
    t.equal(await tight.append('usage', nodeId, block), 'duplicate');
  }
  t.equal(await state(), '');
  t.equal(await post(1), 'stored');
});

t.test('a stream has a bound of gaps, and a node one of streams', async (t) => {
  const { post, state, nodeId } = startNode();
  for (let gap = 1; gap <= postGapsMax; gap += 1) t.equal(await post(2 * gap), 'stored');
  t.equal(await post(2 * postGapsMax + 1), 'stored', 'the next number opens no gap');
  t.equal(await post(2 * postGapsMax + 3), 'gaps');
  t.equal(await post(1), 'stored', 'a number that closes a gap');
  t.equal(await post(2 * postGapsMax + 3), 'stored');
  t.match(await state(), /^203 3-3,5-5,/);

  for (let other = 1; other < postStreamsMax; other += 1) {
    t.equal(await post(1, { of: randomUUID() }), 'stored');
  }
  t.equal(await post(1, { of: randomUUID() }), 'streams');
  t.equal(await post(3), 'stored', 'the streams that it has go on');
  t.equal(await redis.hlen(`${numberedKey(prefix)}:${nodeId}`), postStreamsMax);
});

t.test('numbers up to the greatest that a header can say', async (t) => {
  const { post, state } = startNode();
  t.equal(await post(Number.MAX_SAFE_INTEGER), 'stored');
  t.equal(await post(Number.MAX_SAFE_INTEGER), 'duplicate');
  t.equal(await post(Number.MAX_SAFE_INTEGER - 1), 'stored');
  t.equal(await state(), '9007199254740991 1-9007199254740989');
});

t.test('an id is kept for the window at least, and Redis expires it', async (t) => {
  const { nodeId, post } = startNode();
  const sets = () => redis.keys(`${postsKey(prefix)}:${nodeId}u:*`);
  await post(1, { ageSeconds: 60 });
  const [set = ''] = await sets();
  const seconds = () => redis.ttl(set);
  t.ok((await seconds()) > windowSeconds && (await seconds()) <= windowSeconds + 21_600);
  await redis.expire(set, windowSeconds - 100);
  await post(2, { ageSeconds: 60 });
  t.same(await sets(), [set]);
  t.ok((await seconds()) > windowSeconds, 'the second id is kept as long as the first');
  t.equal(await redis.object('ENCODING', set), 'intset', 'eight bytes an id');
});

t.test('the id of a post that is ahead of the clock is kept for longer', async (t) => {
  const { nodeId, post, age } = startNode();
  const aheadSeconds = 80_000;
  const ahead = { ageSeconds: -aheadSeconds };
  t.equal(await post(1, ahead), 'stored');
  const [set = ''] = await redis.keys(`${postsKey(prefix)}:${nodeId}u:*`);
  t.ok(
    (await redis.ttl(set)) >= windowSeconds + aheadSeconds,
    'until its rows are older than the window',
  );
  await age(2 * windowSeconds);
  t.equal(await post(1, ahead), 'duplicate');
});

t.test('a key of a post with times is known after its hash is gone', async (t) => {
  const { nodeId } = startNode();
  const post = (key: string, body: string, kind: Kind = 'usage', oldest = nowSeconds) =>
    spools[1]?.append(kind, nodeId, {
      ...{ identity: byKey(key, body), rows: 1, bytes: Buffer.alloc(1), oldestSeconds: oldest },
    });
  t.equal(await post('a', 'x'), 'stored');
  t.equal(await post('b', 'x', 'outbound', Number.POSITIVE_INFINITY), 'stored');
  const hashes = await redis.keys(`${prefix}:*:seen:*`);
  t.ok(hashes.length > 0);
  await redis.unlink(...hashes);
  t.equal(await post('a', 'x'), 'duplicate');
  t.equal(await post('a', 'y'), 'stored', 'another post, which no 200 may lose');
  t.equal(await post('b', 'x', 'outbound', Number.POSITIVE_INFINITY), 'duplicate');
});
