import { spawn } from 'node:child_process';
import { createHmac, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pino } from 'pino';
import t, { type Test } from 'tap';
import { readConfig } from '../../src/config.ts';
import { findOrInstall } from '../../src/embedded/find-program.ts';
import { createLogger } from '../../src/log.ts';
import { migratePostgres } from '../../src/stores/migrate.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { connectRedis, createRedis } from '../../src/stores/redis.ts';
import { changeSubscription } from '../../src/subscriptions/change.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { deleteSubscription } from '../../src/subscriptions/delete.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { readWebhookHealth } from '../../src/webhooks/health.ts';
import { dropPendingEvents } from '../../src/webhooks/queue.ts';
import { startWebhook } from '../../src/webhooks/worker.ts';
import { until } from '../support/api.ts';
import { commandLine } from '../support/cli.ts';
import { freePorts } from '../support/free-port.ts';
import { freshStores } from '../support/stores.ts';

const secret = 'a secret of the operator';

interface Received {
  headers: http.IncomingHttpHeaders;
  body: string;
}

/** A receiver that answers with the status that `answer` returns, or not at all. */
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

/** Checks a signature in the way that docs/webhooks.md shows. */
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
  const cli = async (...args: string[]) => cliWith({}, ...args);
  const cliWith = async (settings: Record<string, string>, ...args: string[]) => {
    const { core } = commandLine({ ...stores.environment, ...settings });
    const { exitCode, stdout, stderr } = await core(...args, '--json');
    return { exitCode, value: JSON.parse(stdout + stderr) };
  };
  const redis = createRedis(stores.redisUrl);
  await connectRedis(redis);
  t.teardown(() => redis.disconnect());
  const health = () => readWebhookHealth(redis, stores.redisPrefix);
  return { ...stores, pool, create, webhook, cli, cliWith, logged, health };
}

t.test(
  'an event is sent until the webhook takes it, signed, with the state of the subscription',
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
      'the signature covers the whole body',
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
  // The state after a crash between the two stores.
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

t.test('an event that is never taken becomes a dead letter, and can be retried', async (t) => {
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
  t.match(logged, 'webhook event given up');
  t.notMatch(logged, secret);
  t.notMatch(logged, 'in-the-url', 'the URL may hold a token');
  t.match(logged, 'webhook fails; events are repeated');
  t.match(await core.health(), { failuresEver: 24, deadLetters: 2, waiting: 0 });

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
  const mended = await until(core.health, (found) => found.failingSeconds === 0);
  t.same(mended, { failuresEver: 24, failingSeconds: 0, deadLetters: 0, waiting: 0 });
  for (const args of [[], ['1', '--all']]) {
    t.match((await core.cli('webhook', 'retry', ...args)).value, {
      error: { code: 'INVALID_ARGUMENT' },
    });
  }
});

t.test('no answer in time, and nobody listening', async (t) => {
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
  t.pass('the error says that nobody listens');
});

t.test('without a webhook, events are dropped', async (t) => {
  const core = await start(t);
  await core.create();
  await dropPendingEvents(core.pool);
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
    'a webhook that is set later gets only what happens from then on',
  );
});

/** An nginx that takes posts from one user only. Returns its port. */
async function startNginx(t: Test, user: string, password: string): Promise<number> {
  const found = await findOrInstall('nginx', createLogger('warn'), new AbortController().signal);
  if (!('path' in found)) throw new Error(`nginx is needed: ${found.remedy}`);
  const folder = t.testdir({ users: `${user}:{PLAIN}${password}\n` });
  const [port, behind] = await freePorts(2);
  const config = `daemon off; pid ${folder}/pid; error_log stderr; user root;
    events {} http { access_log off; client_body_temp_path ${folder}/bodies; server {
      listen 127.0.0.1:${port};
      location /hook { auth_basic core; auth_basic_user_file ${folder}/users;
        proxy_pass http://127.0.0.1:${behind}; }
      location /moved { return 307 /hook; } }
    server { listen 127.0.0.1:${behind}; return 200 "taken"; } }`;
  writeFileSync(path.join(folder, 'nginx.conf'), config);
  const child = spawn(found.path, ['-e', 'stderr', '-p', folder, '-c', 'nginx.conf']);
  t.teardown(async () => {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  });
  const answers = () => fetch(`http://127.0.0.1:${port}/moved`, { redirect: 'manual' });
  await until(
    () =>
      answers().then(
        ({ status }) => status,
        () => 0,
      ),
    (status) => status === 307,
  );
  return Number(port);
}

t.test('user and password in the URL become Basic authentication', async (t) => {
  const core = await start(t);
  const [user, password] = ['ops@example.com', 'pä@ss /wörd%'];
  const port = await startNginx(t, user, password);
  const pair = (word: string) => `${encodeURIComponent(user)}:${encodeURIComponent(word)}`;
  const url = (word: string) => `http://${pair(word)}@127.0.0.1:${port}/hook`;
  const webhook = await core.webhook(url(password));
  await core.create();
  await webhook.dispatch();
  await until(core.health, ({ waiting }) => waiting === 0);
  t.match(await core.health(), { failuresEver: 0, deadLetters: 0 });

  const posted = async (to: string) =>
    core.cliWith({ CORE_WEBHOOK_URL: to, CORE_WEBHOOK_SECRET: secret }, 'webhook', 'test');
  t.match(await posted(url(password)), {
    exitCode: 0,
    value: { delivered: true, status: 200, answer: 'taken', reason: null, tookMs: Number },
  });
  const refused = await posted(url('other'));
  t.match(refused, {
    exitCode: 1,
    value: { delivered: false, status: 401, reason: /answered 401: the user and password/ },
  });
  t.notMatch(JSON.stringify(refused), /other|ops/, 'neither user nor password is shown');
  t.match(await posted(`http://127.0.0.1:${port}/moved`), {
    exitCode: 1,
    value: { status: 307, reason: 'The webhook answered 307, a redirect, which is not followed' },
  });
  t.match(await posted(`https://127.0.0.1:${port}/hook`), {
    exitCode: 1,
    value: { delivered: false, status: null, answer: null, reason: /no TLS/ },
  });
});

t.test('a test event is signed like every other and stored nowhere', async (t) => {
  const core = await start(t);
  const receiver = await startReceiver(t, (count) => (count === 1 ? 200 : 500));
  const settings = { CORE_WEBHOOK_URL: receiver.url, CORE_WEBHOOK_SECRET: secret };
  const first = await core.cliWith(settings, 'webhook', 'test');
  t.match(first, { exitCode: 0, value: { delivered: true, answer: 'thanks' } });
  t.ok(receiver.received.every(verified));
  const { headers, body } = receiver.received[0] ?? { headers: {}, body: '' };
  t.equal(headers['x-core-event-id'], '0');
  t.match(JSON.parse(body), { eventId: 0, subscriptionId: null, kind: 'test', data: {} });
  t.match(await core.cliWith(settings, 'webhook', 'test'), {
    exitCode: 1,
    value: { status: 500, reason: 'The webhook answered 500' },
  });
  t.same((await core.cli('webhook', 'list')).value, []);
  t.match(await core.cli('webhook', 'test'), {
    exitCode: 1,
    value: { error: { code: 'INVALID_SETTINGS', message: /No webhook is set/ } },
  });
  const [port] = await freePorts(1);
  const nobody = { ...settings, CORE_WEBHOOK_URL: `http://127.0.0.1:${port}/` };
  t.match(await core.cliWith(nobody, 'webhook', 'test'), {
    exitCode: 1,
    value: { reason: 'The webhook cannot be reached (ECONNREFUSED): nobody listens on its port' },
  });
});

t.test('settings of the webhook', async (t) => {
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
  for (const [pair, fault] of [
    ['us%3Aer:pass', /CORE_WEBHOOK_URL: its user must not hold a colon/],
    ['user:100%', /CORE_WEBHOOK_URL: .* write %25 for a %/],
  ] as const) {
    const wrong = { CORE_WEBHOOK_URL: `https://${pair}@example.com`, CORE_WEBHOOK_SECRET: secret };
    t.throws(() => readConfig(wrong), { code: 'INVALID_SETTINGS', message: fault });
  }
  const short = { CORE_WEBHOOK_URL: url, CORE_WEBHOOK_SECRET: 'short' };
  t.throws(() => readConfig(short), { code: 'INVALID_SETTINGS' });
});
