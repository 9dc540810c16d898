import t from 'tap';
import { reconcile } from '../../src/audit/reconcile.ts';
import { inTransaction } from '../../src/stores/postgres.ts';
import { addTraffic } from '../../src/subscriptions/add-traffic.ts';
import { changeSubscription } from '../../src/subscriptions/change.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { resetSubscription } from '../../src/subscriptions/due.ts';
import { listEvents } from '../../src/subscriptions/events.ts';
import { showSubscription } from '../../src/subscriptions/show.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { commandLine } from '../support/cli.ts';
import { startSpool } from '../support/spool.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 4 });
const { pool } = stores;
const { core, json } = commandLine(stores.environment);

let userId = 0;
t.beforeEach(async () => {
  await pool.query('TRUNCATE users, subscription_events RESTART IDENTITY CASCADE');
  userId = await createUser(pool, { name: 'alice' });
});

async function settle(subscriptionId: number, up: bigint, down: bigint): Promise<void> {
  await inTransaction(pool, (client) =>
    addTraffic(client, {
      subscriptionIds: new BigUint64Array([BigInt(subscriptionId)]),
      bytesUp: new BigUint64Array([up]),
      bytesDown: new BigUint64Array([down]),
      rows: new BigUint64Array([1n]),
    }),
  );
}

async function kinds(): Promise<string[]> {
  return (await listEvents(pool, { afterId: 0, rowsMax: 99 })).map((event) => event.kind);
}

t.test('the time runs from the first traffic, once', async (t) => {
  const { subscriptionId } = await createSubscription(pool, {
    userId,
    trafficLimitBytes: null,
    expiresAt: null,
    durationSeconds: 3_600,
  });
  const waiting = { status: 'active', expiresAt: null, durationSeconds: 3_600 };
  t.match(await showSubscription(pool, subscriptionId), waiting);
  await settle(subscriptionId, 0n, 0n);
  t.match(await showSubscription(pool, subscriptionId), waiting, 'a row of no bytes is no traffic');
  const before = Date.now();
  await settle(subscriptionId, 1n, 0n);
  const started = await showSubscription(pool, subscriptionId);
  t.equal(started.durationSeconds, 3_600);
  const startedMs = (started.expiresAt?.getTime() ?? 0) - 3_600_000;
  t.ok(startedMs >= before - 1_000 && startedMs <= Date.now() + 1_000, `started at ${startedMs}`);
  await settle(subscriptionId, 1n, 1n);
  t.same((await showSubscription(pool, subscriptionId)).expiresAt, started.expiresAt);
  t.same(await kinds(), ['created', 'started']);
});

t.test('an expiry ends a duration, and a duration drops an expiry', async (t) => {
  const created = await json<{ subscriptionId: number }>(
    ...['subscription', 'create', '--user', String(userId), '--duration', '30d'],
  );
  const id = created.subscriptionId;
  t.match(await showSubscription(pool, id), { durationSeconds: 2_592_000, expiresAt: null });
  await changeSubscription(pool, id, { expiresAt: new Date('2040-01-01T00:00:00Z') });
  await settle(id, 1n, 1n);
  t.match(await showSubscription(pool, id), {
    durationSeconds: null,
    expiresAt: new Date('2040-01-01T00:00:00Z'),
  });
  await json('subscription', 'set', String(id), '--duration', '12h');
  t.match(await showSubscription(pool, id), { durationSeconds: 43_200, expiresAt: null });
  await settle(id, 1n, 1n);
  t.not((await showSubscription(pool, id)).expiresAt, null);
  await json('subscription', 'set', String(id), '--expires', 'never');
  t.match(await showSubscription(pool, id), { durationSeconds: null, expiresAt: null });
  t.same(await kinds(), [
    'created',
    'expiry_changed',
    'expiry_changed',
    'started',
    'expiry_changed',
  ]);
});

t.test('what a duration may not be', async (t) => {
  const create = ['subscription', 'create', '--user', String(userId)];
  for (const given of ['30', 'd', '0d', '-1d', '1.5d', '1e3d', '99999999d', '1y']) {
    const { exitCode, stderr } = await core(...create, `--duration=${given}`);
    t.equal(exitCode, 1, given);
    t.match(stderr, /--duration.*It must be/, given);
  }
  const both = ['--duration', '1d', '--expires', '2040-01-01T00:00:00Z'];
  t.match((await core(...create, ...both)).stderr, /Give --expires or --duration/);
  t.match((await core('subscription', 'set', '1', ...both)).stderr, /Give --expires or --duration/);
});

t.test(
  'bytes used before Core count for the limit, and the counters stay those of rows',
  async (t) => {
    const used = { userId, expiresAt: null, trafficLimitBytes: 100, usedBytes: 90 };
    const { subscriptionId } = await createSubscription(pool, used);
    t.match(await showSubscription(pool, subscriptionId), {
      status: 'active',
      usedBytes: 90,
      trafficBytesUp: 0,
      trafficBytesDown: 0,
    });
    await settle(subscriptionId, 0n, 6n);
    t.same(await kinds(), ['created', 'warning_95'], 'the 80 % were passed before');
    await resetSubscription(pool, subscriptionId);
    t.match(await showSubscription(pool, subscriptionId), { usedBytes: 0, status: 'active' });
    const full = await createSubscription(pool, { ...used, usedBytes: 100 });
    t.match(await showSubscription(pool, full.subscriptionId), {
      status: 'limited',
      usedBytes: 100,
    });
  },
);

t.test('an audit finds no difference in a subscription that was used before', async (t) => {
  const load = await startSpool(t);
  const user = await createUser(load.pool, { name: 'bob' });
  const { subscriptionId } = await createSubscription(load.pool, {
    userId: user,
    expiresAt: null,
    trafficLimitBytes: null,
    usedBytes: 40_000_000_000,
    durationSeconds: 60,
  });
  await load.appendUsage([{ subscriptionId }, { subscriptionId }]);
  await load.run('usage');
  const { signal } = new AbortController();
  const found = await reconcile(load, { since: null, signal });
  t.match(found, { subscriptions: 1, differences: 0 });
  const shown = await showSubscription(load.pool, subscriptionId);
  const counted = shown.trafficBytesUp + shown.trafficBytesDown;
  t.ok(counted > 0);
  t.equal(shown.usedBytes, 40_000_000_000 + counted);
  t.not(shown.expiresAt, null, 'the settle started its time');
});
