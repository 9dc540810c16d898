import { setImmediate as nextTurn } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { startWorker } from '../../src/app/worker.ts';
import { reconcile } from '../../src/audit/reconcile.ts';
import { lateLoad } from '../../src/load/late.ts';
import { retrySegment } from '../../src/load/worker.ts';
import { compact } from '../../src/rows/compact.ts';
import { packUsage } from '../../src/rows/pack.ts';
import { listUnsettled } from '../../src/spool/backlog.ts';
import { createSpool, type SpoolBlock } from '../../src/spool/spool.ts';
import { type Kind, streamName, type UsualOrLate } from '../../src/spool/streams.ts';
import { createClickHouse } from '../../src/stores/clickhouse.ts';
import { migrateClickHouse } from '../../src/stores/migrate.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import {
  post,
  registerTestNode,
  startTestApi,
  type TestApi,
  until,
  usageEntry,
  wideEntries,
} from '../support/api.ts';
import { byKey } from '../support/identities.ts';
import { atMs, startSpool } from '../support/spool.ts';
import { openStores } from '../support/stores.ts';

const dayMs = 86_400_000;
const daysAgo = (days: number, nowMs: number = Date.now()): string =>
  new Date(nowMs - days * dayMs).toISOString();
const sixtyDays = { CORE_LATE_DAYS: '60', CORE_SPOOL_SHARDS: '1' };

async function startApi(t: Test, settings: Record<string, string> = {}) {
  const api = await startTestApi(t, { ...sixtyDays, ...settings });
  const node = await registerTestNode(api);
  return {
    ...api,
    usage: (days: readonly number[], headers: Record<string, string> = {}, nowMs?: number) =>
      post(
        api,
        '/node/usage',
        { entries: days.map((ago) => usageEntry({ recordedAt: daysAgo(ago, nowMs) })) },
        { node, headers },
      ),
    send: (path: string, body: unknown) => post(api, path, body, { node }),
    rows: () => rowsIn(api, 'usage'),
  };
}

/** Rows ever appended to the two streams of a kind. */
async function rowsIn(
  { redis, config }: Pick<TestApi, 'redis' | 'config'>,
  kind: Kind,
): Promise<Record<UsualOrLate, number>> {
  const rows = async (usualOrLate: UsualOrLate): Promise<number> =>
    Number(await redis.get(`${streamName(config.stores.redisPrefix, 0, kind, usualOrLate)}:rows`));
  return { usual: await rows('usual'), late: await rows('late') };
}

t.test('a post with a row of long ago goes to the late stream as a whole', async (t) => {
  const api = await startApi(t);
  const sends: [days: number[], rows: { usual: number; late: number }][] = [
    [[0, 1], { usual: 2, late: 0 }],
    [[59.9], { usual: 3, late: 0 }],
    [[60.1], { usual: 3, late: 1 }],
    [[0, 61, 0], { usual: 3, late: 4 }],
    [[0, 0, 1_000], { usual: 3, late: 7 }],
    [[], { usual: 3, late: 7 }],
  ];
  for (const [days, expected] of sends) {
    t.equal((await api.usage(days)).status, 200);
    t.same(await api.rows(), expected, JSON.stringify(days));
  }

  // The scanner leaves entries with an unknown field to zod, which ignores the field.
  const byZod = [0, 61].map((ago) => usageEntry({ recordedAt: daysAgo(ago), unknown: 1 }));
  t.equal((await api.send('/node/usage', { entries: byZod })).status, 200);
  t.same(await api.rows(), { usual: 3, late: 9 });

  const event = (ago: number) => ({
    ...{ userId: 1, protocol: 'vless', eventType: 'ONLINE', ipAddress: '2001:db8::1' },
    occurredAt: daysAgo(ago),
  });
  for (const events of [[event(59.9)], [event(0), event(61)], [event(0)]]) {
    t.equal((await api.send('/node/session-events', { events })).status, 200);
  }
  t.same(await rowsIn(api, 'session'), { usual: 2, late: 2 });

  const items = [{ tag: 'direct', bytesUp: 1, bytesDown: 2 }];
  t.equal((await api.send('/node/outbound-usage', { items })).status, 200);
  t.same(await rowsIn(api, 'outbound'), { usual: 1, late: 0 });
});

t.test('a post that became late before its repeat is stored once', async (t) => {
  const api = await startApi(t);
  const now = Date.now();
  const key = { 'idempotency-key': 'k' };
  t.equal((await api.usage([59.9], {}, now)).status, 200);
  t.equal((await api.usage([59.8], key, now)).status, 200);
  t.same(await api.rows(), { usual: 2, late: 0 });
  api.setClock(() => now + dayMs);
  t.equal((await api.usage([59.9], {}, now)).status, 200, 'recognised by its bytes');
  t.equal((await api.usage([59.8], key, now)).status, 200, 'recognised by its key');
  const other = await api.usage([59.7], key, now);
  t.equal(other.status, 422);
  t.equal(other.json.error?.code, 'IDEMPOTENCY_KEY_REUSED');
  t.same(await api.rows(), { usual: 2, late: 0 });

  t.equal((await api.usage([59.7], {}, now)).status, 200, 'this one is late when it comes first');
  t.same(await api.rows(), { usual: 2, late: 1 });
  api.setClock(() => now);
  t.equal(
    (await api.usage([59.7], {}, now)).status,
    200,
    'and no longer late, because the clock was put back',
  );
  t.same(await api.rows(), { usual: 2, late: 1 });
});

/** The spools of two api processes: no row is late for the first, and each is late for the second. */
async function startTwoSpools(t: Test) {
  const { redis, prefix, config } = await openStores(t, { max: 1 });
  const spools = [36_500, 1].map((lateDays) => {
    const bounds = { bytesMax: 1e9, lateBytesMax: 1e9, idempotencySeconds: 60 };
    return createSpool({ redis, prefix, shards: 1, lateDays, nowMs: Date.now, ...bounds });
  });
  t.teardown(() => Promise.all(spools.map((spool) => spool.close())));
  return { spools, rows: () => rowsIn({ redis, config }, 'usage') };
}

function blockOf(key: string, body = ''): SpoolBlock {
  const ids = { userId: 1, nodeProtocolId: 1, bytesUp: 1, bytesDown: 1 };
  const bytes = packUsage(1, [{ ...ids, recordedAt: Date.now() - 10 * dayMs }]);
  return { identity: byKey(key, body), ...compact('usage', { rows: 1, bytes }) };
}

t.test('a post is stored once if its repeat comes after a change of the setting', async (t) => {
  const { spools, rows } = await startTwoSpools(t);
  const [before, after] = spools;
  await before?.append('usage', 1, blockOf('a', 'x'));
  await after?.append('usage', 1, blockOf('a', 'x'));
  await after?.append('usage', 1, blockOf('b', 'x'));
  await before?.append('usage', 1, blockOf('b', 'x'));
  t.same(await rows(), { usual: 1, late: 1 });
  for (const spool of spools) {
    t.equal(await spool.append('usage', 1, blockOf('a', 'y')), 'conflict');
  }
});

t.test('if copies go to both streams at once, one is stored', async (t) => {
  const { spools, rows } = await startTwoSpools(t);
  const keys = Array.from({ length: 3_000 }, (_, index) => `post-${index}`);
  // One spool begins with the first keys and the other with the last, in several flushes each.
  const orders = [keys, [...keys].reverse()];
  await Promise.all(
    spools.flatMap((spool, index) =>
      (orders[index] ?? []).map((key) => spool.append('usage', 1, blockOf(key))),
    ),
  );
  const { usual, late } = await rows();
  t.equal(usual + late, keys.length);
  t.ok(usual > 0 && late > 0, 'each stream took some');
});

t.test('the late stream has its own bound', async (t) => {
  const api = await startApi(t, { CORE_SPOOL_BYTES_MAX: '1048576' });
  const wide = (userId: number, ago: number) =>
    wideEntries(5_000, userId).map((entry) => ({ ...entry, recordedAt: daysAgo(ago) }));
  const fill = (userId: number, ago: number) =>
    api.send('/node/usage', { entries: wide(userId, ago) });
  t.equal((await fill(1, 100)).status, 200);
  const refused = await fill(2, 100);
  t.equal(refused.status, 503);
  t.equal(refused.json.error?.code, 'LATE_BACKLOG_FULL');
  t.ok(Number(refused.headers['retry-after']) >= 1);
  for (const userId of [3, 4, 5, 6, 7]) {
    t.equal((await fill(userId, 1)).status, 200, 'the usual stream has room');
  }
  t.same(await api.rows(), { usual: 25_000, late: 5_000 });
  const full = await fill(8, 1);
  t.equal(full.json.error?.code, 'BACKLOG_FULL', 'the usual stream is full');
  t.equal((await api.usage([100])).status, 200);
});

/** A time in each of this many months from 2020 on. */
function firstMonths(months: number): number[] {
  return Array.from({ length: months }, (_, month) => Date.UTC(2020, month, 3));
}

t.test('usual rows are counted while a late segment is loaded', async (t) => {
  const api = await startApi(t, { CORE_LATE_INTERVAL_MS: '50' });
  await migrateClickHouse(api.config.stores.clickhouseUrl, api.pool, api.log);
  const clickhouse = createClickHouse(api.config.stores.clickhouseUrl);
  t.teardown(() => clickhouse.close());
  const userId = await createUser(api.pool, { name: 'u' });
  const terms = { userId, trafficLimitBytes: null, expiresAt: null };
  const { subscriptionId: honest } = await createSubscription(api.pool, terms);
  const { subscriptionId: liar } = await createSubscription(api.pool, terms);
  const months = firstMonths(6);
  const send = (subscriptionId: number, times: readonly number[], bytesDown: number) =>
    api.send('/node/usage', {
      entries: times.map((ms) => {
        const recordedAt = new Date(ms).toISOString();
        return usageEntry({ userId, subscriptionId, bytesUp: 0, bytesDown, recordedAt });
      }),
    });
  for (let n = 1; n <= 20; n += 1) t.equal((await send(liar, months, n)).status, 200);
  const worker = await startWorker(api.config, api.log);
  t.teardown(() => worker.close());
  const segments = async () =>
    (
      await api.pool.query<{ late: boolean; state: string; rows: number; attempts: number }>(
        `SELECT stream LIKE '%-late' AS late, state, rows, attempts FROM segments ORDER BY id`,
      )
    ).rows;
  const begun = await until(segments, ([first]) => first?.attempts === 1);
  t.match(
    begun,
    [{ late: true, state: 'sealed', rows: 20 * months.length }],
    'one segment for 20 posts',
  );

  t.equal((await send(honest, [Date.now()], 7)).status, 200);
  const counter = async (id: number): Promise<number> =>
    (
      await api.pool.query<{ down: number }>(
        'SELECT traffic_bytes_down AS down FROM subscriptions WHERE id = $1',
        [id],
      )
    ).rows[0]?.down ?? 0;
  await until(
    () => counter(honest),
    (down) => down === 7,
  );
  t.equal(await counter(liar), 0, 'the late segment is not settled yet');
  t.match(await segments(), [
    { late: true, state: 'sealed' },
    { late: false, state: 'settled' },
  ]);
  await until(
    () => counter(liar),
    (down) => down === 210 * months.length,
    60_000,
  );
  const audit = await reconcile(
    { pool: api.pool, clickhouse },
    { since: null, signal: new AbortController().signal },
  );
  t.match(audit, { segments: 2, subscriptions: 2, differences: 0 });
  await until(
    () => api.redis.xlen(streamName(api.config.stores.redisPrefix, 0, 'usage', 'late')),
    (entries) => entries === 0,
  );
});

t.test('late sessions are loaded, and an operator can retry a late segment', async (t) => {
  const load = await startSpool(t, { CORE_LATE_DAYS: '60', CORE_LATE_INTERVAL_MS: '50' });
  await load.command('ALTER TABLE usage ADD CONSTRAINT c CHECK user_id != 666');
  const old = { occurredAt: atMs - 61 * dayMs, eventType: 'ONLINE', protocol: 'VLESS' } as const;
  await load.appendSessions([{ ...old, userId: 1, ipAddress: '::1' }]);
  await load.appendUsage([{ userId: 666, recordedAt: atMs - 61 * dayMs }]);
  t.match(await load.runLate('session'), { outcome: 'drained', segments: 1, rows: 1 });
  t.same(await load.rows('SELECT count() AS n FROM session_events'), [{ n: 1 }]);
  await t.rejects(load.runLate('usage'));
  await load.command('ALTER TABLE usage DROP CONSTRAINT c');
  const [segment] = await listUnsettled(load.pool, { rowsMax: 10 });
  const stream = streamName(load.redisPrefix, 0, 'usage', 'late');
  t.match(segment, { stream, attempts: 1 });
  const deps = { db: load.pool, redisUrl: load.redisUrl, prefix: load.redisPrefix };
  t.match(await retrySegment(deps, segment?.segmentId ?? 0), { stream });
  const waiting = `{${load.redisPrefix}}:bull:load-late:wait`;
  t.equal(await load.redis.llen(waiting), 1, 'in the queue of late streams');
  const worker = await startWorker(load.config, load.log);
  t.teardown(() => worker.close());
  const rows = async () => (await load.rows<{ n: number }>('SELECT count() AS n FROM usage'))[0]?.n;
  await until(rows, (n) => n === 1);
  await until(
    () => load.redis.llen(waiting),
    (n) => n === 0,
  );
});

t.test('a run of a late stream pauses between months, but not once the worker stops', async (t) => {
  const load = await startSpool(t, { CORE_LATE_DAYS: '60' });
  const old = (days: number) => ({ recordedAt: atMs - days * dayMs });
  const stopping = new AbortController();
  const deps = lateLoad({ ...load.deps, lateGroupBytesMax: 1e6 }, stopping.signal);
  const pauses: number[] = [];
  const pauseBetweenMonths = async (insertMs: number): Promise<void> => {
    pauses.push(insertMs);
  };
  await load.appendUsage([old(70), old(0), old(105), old(0)]);
  t.match(await load.runLate('usage', { ...deps, pauseBetweenMonths }), { segments: 1, rows: 4 });
  t.equal(pauses.length, 2, 'between three months');
  t.ok(pauses.every((ms) => ms > 0));

  await load.appendUsage([old(70)]);
  await load.runLate('usage', { ...deps, pauseBetweenMonths });
  t.equal(pauses.length, 2, 'one month needs no pause');

  t.equal(deps.goesOn?.(0, true), true);
  t.equal(deps.goesOn?.(1, false), false, 'what comes meanwhile waits for the next run');
  t.equal(deps.goesOn?.(1, true), true);
  t.equal(deps.goesOn?.(8, true), false);
  const pausing = deps.pauseBetweenMonths?.(600_000).then(() => 'ended');
  t.equal(await Promise.race([pausing, nextTurn('pausing')]), 'pausing');
  stopping.abort();
  t.equal(await Promise.race([pausing, nextTurn('pausing')]), 'ended');
  const another = deps.pauseBetweenMonths?.(600_000).then(() => 'ended');
  t.equal(await Promise.race([another, nextTurn('pausing')]), 'ended');
  t.equal(deps.goesOn?.(0, true), false);
});
