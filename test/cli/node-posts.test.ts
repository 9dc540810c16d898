import { randomUUID } from 'node:crypto';
import t from 'tap';
import { createSpool } from '../../src/spool/spool.ts';
import { connectRedis, createRedis } from '../../src/stores/redis.ts';
import { commandLine } from '../support/cli.ts';
import { freePorts } from '../support/free-port.ts';
import { byNumber } from '../support/identities.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 2, connectTimeoutMs: 60_000 });
const { core, json } = commandLine(stores.environment);
const redis = createRedis(stores.config.stores.redisUrl);
t.teardown(() => redis.disconnect());
await connectRedis(redis);
const { redisPrefix: prefix } = stores.config.stores;
const spool = createSpool({ redis, prefix, ...stores.config.spool, nowMs: Date.now });
t.teardown(() => spool.close());

async function post(nodeId: number, stream: string, ...numbers: number[]): Promise<void> {
  const bytes = Buffer.from('row');
  for (const number of numbers) {
    const identity = byNumber(stream, number, String(number));
    const block = { identity, rows: 1, bytes, oldestSeconds: Number.POSITIVE_INFINITY };
    t.equal(await spool.append('outbound', nodeId, block), 'stored');
  }
}

t.before(async () => {
  for (const name of ['fra-1', 'fra-2']) await json('node', 'create', '--name', name);
});

t.test('posts that a node announced and Core has never seen', async (t) => {
  const stream = randomUUID();
  t.equal((await core('node', 'posts', '1')).stdout, 'The node has sent no numbered post.\n');
  await post(1, stream, 1, 2, 4, 9);
  t.match(await json('node', 'show', '1'), { missingPosts: 5 });
  t.match(
    (await core('node', 'show', '1')).stdout,
    new RegExp(`^missing posts +3, 5 to 8 of stream ${stream}$`, 'm'),
  );
  const [shown] = await json<Record<string, unknown>[]>('node', 'posts', '1');
  t.match(shown, {
    stream,
    greatest: 9,
    missing: 5,
    gaps: [
      { first: 3, last: 3 },
      { first: 5, last: 8 },
    ],
  });
  const after = Date.parse(String(shown?.['lastPostAfter']));
  t.ok(Math.abs(Date.now() - after) < 60_000, 'the last post came after this');
  t.match((await core('node', 'posts', '1')).stdout, /9 +5 +3, 5 to 8 /);
  await post(1, stream, 3, 5, 6, 7, 8);
  t.match(await json('node', 'show', '1'), { missingPosts: 0 });
  t.match(await json('node', 'show', '2'), { missingPosts: 0 });
});

t.test('many gaps are counted in the text', async (t) => {
  await post(2, randomUUID(), 2, 4, 6, 8, 10, 12, 14);
  t.match((await core('node', 'posts', '2')).stdout, / 1, 3, 5, 7, 9 and 2 more gaps /);
});

t.test('a stream whose agent is gone is forgotten', async (t) => {
  const stream = randomUUID();
  await post(1, stream, 1);
  const asked = await core('node', 'posts', '1', '--forget', stream);
  t.equal(asked.exitCode, 1);
  t.match(asked.stderr, /counts a post of it again .* give --yes to do it/);
  t.same(await json('node', 'posts', '1', '--forget', stream, '--yes'), {
    ...{ nodeId: 1, stream, status: 'forgotten' },
  });
  const again = await core('node', 'posts', '1', '--forget', stream, '--yes');
  t.equal(again.stderr, `core: Node 1 has no stream ${stream}\n`);
  t.match((await core('node', 'posts', '99')).stderr, /There is no node 99/);
});

t.test('a node is shown without Redis, too', async (t) => {
  const [port] = await freePorts(1);
  const away = { ...stores.environment, REDIS_URL: `redis://127.0.0.1:${port}` };
  const shown = await commandLine(away).core('node', 'show', '1', '--json');
  t.equal(shown.exitCode, 0);
  t.match(JSON.parse(shown.stdout), { nodeId: 1, missingPosts: null });
  t.match(shown.stderr, /^Whether posts are missing is not known: Redis at .* cannot be used/);
});
