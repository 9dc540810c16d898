import { createHmac, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pino } from 'pino';
import t, { type Test } from 'tap';
import { runCli } from '../src/cli/program.ts';
import { readConfig } from '../src/config.ts';
import { createLogger } from '../src/log.ts';
import { migratePostgres } from '../src/stores/migrate.ts';
import { createPool } from '../src/stores/postgres.ts';
import { changeSubscription } from '../src/subscriptions/change.ts';
import { createSubscription } from '../src/subscriptions/create.ts';
import { deleteSubscription } from '../src/subscriptions/delete.ts';
import { createUser } from '../src/subscriptions/users.ts';
import { passEvents } from '../src/webhooks/dispatch.ts';
import { startWebhook } from '../src/webhooks/worker.ts';
import { until } from './support/api.ts';
import { freshStores } from './support/stores.ts';

const secret = 'a secret of the operator';

interface Received {
  headers: http.IncomingHttpHeaders;
  body: string;
}

/** A receiver that answers as `answer` says: a status, or never. */
async function startReceiver(t: Test, answer: (count: number) => number | 'never') {
  const received: Received[] = [];
  const server = http.createServer(async (request, response) => {
    received.push({ headers: request.headers, body: await text(request) });
    const status = answer(received.length);
    if (status === 'never') return;
    response.writeHead(status, status === 302 ? { location: '/elsewhere' } : {}).end('thanks');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/hook?token=in-the-url`, received, server };
}

/** As docs/webhooks.md shows it. */
function verified({ headers, body }: Received): boolean {
  const [, time, given] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(
    String(headers['x-core-signature']),
  ) ?? ['', '', ''];
  if (Math.abs(Date.now() / 1_000 - Number(time)) > 300) return false;
  const expected = createHmac('sha256', secret).update(`${time}.${body}`).digest();
  return timingSafeEqual(expected, Buffer.from(given ?? '', 'hex'));
}

async function start(t: Test) {
  const stores = await freshStores(t);
  const logged = new PassThrough();
  const pool = createPool(stores.databaseUrl, { max: 4 });
  t.teardown(() => pool.end());
  await migratePostgres(pool, createLogger('silent'));
  const userId = await createUser(pool, { name: 'u' });
  const create = async () =>
    (await createSubscription(pool, { userId, trafficLimitBytes: null, expiresAt: null }))
      .subscriptionId;
  const webhook = async (url: string, timeoutMs = 10_000) => {
    const running = await startWebhook({
      pool,
      redisUrl: stores.redisUrl,
      prefix: stores.redisPrefix,
      target: { url, secret, timeoutMs },
      log: pino({ level: 'debug' }, logged),
      backoffMs: 1,
    });
    t.teardown(() => running.close());
    return running;
  };
  const cli = async (...args: string[]) => {
    const stdout = new PassThrough();
    const stderr = new PassThrough();
    const { exitCode } = await runCli([...args, '--json'], {
      readConfig: () => readConfig(stores.environment),
      stdout,
      stderr,
    });
    stdout.end();
    stderr.end();
    return { exitCode, value: JSON.parse((await text(stdout)) + (await text(stderr))) };
  };
  return { ...stores, pool, create, webhook, cli, logged };
}

t.test(
  'an event is sent until it is taken, signed, with the state of the subscription',
  async (t) => {
    const core = await start(t);
    const receiver = await startReceiver(t, (count) => [500, 302, 200, 204][count - 1] ?? 200);
    const webhook = await core.webhook(receiver.url);
    const subscriptionId = await core.create();
    await webhook.dispatch();
    await until(
      async () => receiver.received.length,
      (count) => count === 3,
    );
    const [first, , last] = receiver.received;
    t.ok(receiver.received.every(verified), 'each attempt is signed');
    t.notOk(
      verified({ headers: last?.headers ?? {}, body: `${last?.body} ` }),
      'and the body whole',
    );
    t.equal(first?.body, last?.body);
    t.equal(last?.headers['x-core-event-id'], '1');
    t.equal(last?.headers['content-type'], 'application/json');
    t.match(JSON.parse(last?.body ?? ''), {
      eventId: 1,
      subscriptionId,
      kind: 'created',
      at: /^\d{4}-/,
      data: { status: 'active' },
      subscription: { subscriptionId, status: 'active', usedBytes: 0 },
    });
    await webhook.dispatch();
    await deleteSubscription(core.pool, subscriptionId);
    await webhook.dispatch();
    await until(
      async () => receiver.received.length,
      (count) => count === 4,
    );
    t.match(JSON.parse(receiver.received[3]?.body ?? ''), { kind: 'deleted', subscription: null });
    t.same((await core.cli('webhook', 'list')).value, []);
  },
);

t.test('an event handed over twice is one job', async (t) => {
  const core = await start(t);
  const receiver = await startReceiver(t, () => 200);
  const webhook = await core.webhook(receiver.url);
  await core.create();
  await webhook.dispatch();
  // As after a crash between the two stores.
  await core.pool.query('UPDATE subscription_events SET pending = true');
  await core.create();
  await webhook.dispatch();
  await until(
    async () => receiver.received.length,
    (count) => count >= 2,
  );
  const ids = receiver.received.map(({ headers }) => headers['x-core-event-id']);
  t.same(ids.sort(), ['1', '2']);
});

t.test('what is never taken becomes a dead letter, and can be retried', async (t) => {
  const core = await start(t);
  let status = 503;
  const receiver = await startReceiver(t, () => status);
  const webhook = await core.webhook(receiver.url);
  const subscriptionId = await core.create();
  await changeSubscription(core.pool, subscriptionId, { disabled: true });
  await webhook.dispatch();
  const list = async () => (await core.cli('webhook', 'list')).value as unknown[];
  const letters = await until(list, (found) => found.length === 2, 60_000);
  t.match(letters, [
    { subscriptionId, attempts: 12, lastError: 'The webhook answered 503', failedAt: /^\d{4}-/ },
    { attempts: 12 },
  ]);
  t.equal(receiver.received.length, 24);
  const logged = String(core.logged.read());
  t.match(logged, 'webhook given up');
  t.notMatch(logged, secret);
  t.notMatch(logged, 'in-the-url', 'the URL may hold a token');

  status = 200;
  t.match(await core.cli('webhook', 'retry', '99'), {
    exitCode: 1,
    value: { error: { code: 'NOT_FOUND' } },
  });
  t.same(await core.cli('webhook', 'retry', '1'), { exitCode: 0, value: { retried: 1 } });
  await until(list, (found) => found.length === 1);
  t.same(await core.cli('webhook', 'retry', '--all'), { exitCode: 0, value: { retried: 1 } });
  await until(
    async () => receiver.received.length,
    (count) => count === 26,
  );
  t.same(await list(), []);
  for (const args of [[], ['1', '--all']]) {
    t.match((await core.cli('webhook', 'retry', ...args)).value, {
      error: { code: 'INVALID_ARGUMENT' },
    });
  }
});

t.test('no answer in time, and nobody there', async (t) => {
  const core = await start(t);
  const receiver = await startReceiver(t, () => 'never');
  const webhook = await core.webhook(receiver.url, 20);
  await core.create();
  await webhook.dispatch();
  const letters = async () => (await core.cli('webhook', 'list')).value as unknown[];
  t.match(await until(letters, (found) => found.length === 1, 60_000), [
    { lastError: 'The webhook gave no answer within 20 ms' },
  ]);
  receiver.server.closeAllConnections();
  receiver.server.close();
  await core.cli('webhook', 'retry', '--all');
  const away = /The webhook cannot be reached \(ECONNREFUSED\)/;
  await until(letters, (found) => away.test(JSON.stringify(found)), 60_000);
  t.pass('says that nobody listens');
});

t.test('where no webhook is set, events are let go', async (t) => {
  const core = await start(t);
  await core.create();
  await passEvents(core.pool);
  const receiver = await startReceiver(t, () => 200);
  const webhook = await core.webhook(receiver.url);
  await core.create();
  await webhook.dispatch();
  await until(
    async () => receiver.received.length,
    (count) => count > 0,
  );
  t.same(
    receiver.received.map(({ headers }) => headers['x-core-event-id']),
    ['2'],
    'one that is set later gets what happens from then on',
  );
});

t.test('settings', async (t) => {
  const url = 'https://example.com/hook';
  t.equal(readConfig({}).events.webhook, undefined);
  t.same(readConfig({ CORE_WEBHOOK_URL: url, CORE_WEBHOOK_SECRET: secret }).events.webhook, {
    url,
    secret,
  });
  t.throws(() => readConfig({ CORE_WEBHOOK_URL: url }), {
    code: 'INVALID_SETTINGS',
    message: /CORE_WEBHOOK_SECRET: needed/,
  });
  const short = { CORE_WEBHOOK_URL: url, CORE_WEBHOOK_SECRET: 'short' };
  t.throws(() => readConfig(short), { code: 'INVALID_SETTINGS' });
});
