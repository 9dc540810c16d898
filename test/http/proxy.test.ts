import { gunzipSync, gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { createPage } from '../../src/pages/tokens.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { startTestApi, type TestApi, until, usageEntry } from '../support/api.ts';
import { freePorts } from '../support/free-port.ts';
import {
  connectionsTo,
  type ProxyReply,
  type RunningProxy,
  sendThrough,
  startCaddy,
  startNginx,
} from '../support/proxies.ts';

const settings = {
  CORE_TRUSTED_PROXIES: '127.0.0.1',
  CORE_REGISTRATION_FAILURES_MAX: '3',
  CORE_SUBSCRIPTION_PAGES: 'true',
  CORE_PAGE_ADDRESS_REQUESTS_MAX: '20',
};
const node = { name: 'n', host: 'h', ip: '1.2.3.4', region: 'eu' };
const codeOf = ({ body }: ProxyReply): unknown => JSON.parse(body.toString()).error?.code;

const programs: [string, (t: Test, corePort: number) => Promise<RunningProxy>][] = [
  ['nginx', startNginx],
  ['Caddy', startCaddy],
];

type Through = (
  method: string,
  path: string,
  options?: Parameters<typeof sendThrough>[4],
) => Promise<ProxyReply>;
type Key = Record<string, string>;

async function checkUsage(t: Test, through: Through, key: Key): Promise<void> {
  const usage = (userId: number) => JSON.stringify({ entries: [usageEntry({ userId })] });
  const text = usage(2);
  for (const options of [
    { headers: key, body: usage(1) },
    { headers: key, body: [text.slice(0, 9), text.slice(9)] },
    { headers: { ...key, 'content-encoding': 'gzip' }, body: gzipSync(usage(3)) },
  ]) {
    const reply = await through('POST', '/node/usage', options);
    t.equal(reply.status, 200);
    t.same(JSON.parse(reply.body.toString()), { ok: true });
  }
  const entries = Array.from({ length: 9_000 }, () => usageEntry({ userId: 4 }));
  const large = JSON.stringify({ entries });
  t.ok(large.length > 1_000_000);
  t.equal((await through('POST', '/node/usage', { headers: key, body: large })).status, 200);
}

async function checkConfiguration(t: Test, through: Through, key: Key): Promise<void> {
  const path = '/node/config/latest';
  const plain = await through('GET', path, { headers: key });
  t.equal(plain.status, 200);
  const gzip = await through('GET', path, { headers: { ...key, 'accept-encoding': 'gzip' } });
  t.equal(gzip.headers['content-encoding'], 'gzip');
  t.same(gunzipSync(gzip.body), plain.body);
  const etag = String(plain.headers['etag']);
  t.match(etag, /^"\d+"$/);
  // Core renders the first answer on demand, and the process hears of its revision a little later.
  const known = await until(
    () => through('GET', path, { headers: { ...key, 'if-none-match': etag } }),
    ({ status }) => status === 304,
  );
  t.equal(known.headers['etag'], etag);
  t.equal(known.body.length, 0);
  const head = await through('HEAD', path, { headers: key });
  t.equal(head.status, 200);
  t.equal(head.headers['etag'], etag);
  t.equal(head.body.length, 0);
}

async function checkRefusals(t: Test, through: Through, key: Key): Promise<void> {
  const tooLarge = { headers: key, body: Buffer.alloc(4_194_305, ' ') };
  const chunked = { headers: key, body: Array(5).fill(' '.repeat(1_048_576)) as string[] };
  const bomb = gzipSync(tooLarge.body);
  for (const [expected, code, reply] of [
    [401, 'UNAUTHORIZED', await through('POST', '/node/heartbeat', { body: '{}' })],
    [405, 'METHOD_NOT_ALLOWED', await through('GET', '/node/usage', { headers: key })],
    [413, 'BODY_TOO_LARGE', await through('POST', '/node/usage', tooLarge)],
    [413, 'BODY_TOO_LARGE', await through('POST', '/node/usage', chunked)],
    [
      413,
      'BODY_TOO_LARGE',
      await through('POST', '/node/usage', {
        headers: { ...key, 'content-encoding': 'gzip' },
        body: bomb,
      }),
    ],
    [404, 'NOT_FOUND', await through('GET', '/node/nothing')],
    [404, 'NOT_FOUND', await through('GET', '/metrics')],
    [404, 'NOT_FOUND', await through('GET', '/readyz')],
    [404, 'NOT_FOUND', await through('GET', '/')],
  ] as const) {
    t.equal(reply.status, expected);
    t.equal(codeOf(reply), code);
    t.match(reply.headers['content-type'], /^application\/json/);
  }
}

async function checkMany(t: Test, through: Through, key: Key): Promise<void> {
  for (let round = 0; round < 50; round += 1) {
    const replies = await Promise.all(
      Array.from({ length: 8 }, () =>
        through('POST', '/node/heartbeat', { headers: key, body: '{}' }),
      ),
    );
    t.ok(replies.every(({ status }) => status === 200));
  }
}

async function checkLockOut(t: Test, proxy: RunningProxy, api: TestApi): Promise<void> {
  const register = async (localAddress: string, code: string, claimed?: string) => {
    const own = connectionsTo(proxy, localAddress);
    const headers: Record<string, string> =
      claimed === undefined ? {} : { 'x-forwarded-for': claimed };
    const body = JSON.stringify({ ...node, code });
    const reply = await sendThrough(proxy, own, 'POST', '/node/register', { headers, body });
    own.destroy();
    return reply.status;
  };
  for (let count = 0; count < 3; count += 1) t.equal(await register('127.0.0.66', 'NO'), 403);
  t.equal(await register('127.0.0.66', 'NO'), 429);
  t.equal(
    await register('127.0.0.66', 'NO', '198.51.100.7'),
    429,
    'its own X-Forwarded-For does not help',
  );
  for (let host = 2; host < 22; host += 1) {
    t.equal(await register(`127.0.0.${host}`, 'NO'), 403, 'nobody else is locked out');
  }
  t.equal(await register('127.0.0.7', (await api.issueCode()).code), 200);
  t.equal(await register('127.0.0.66', (await api.issueCode()).code), 200);
}

async function checkPages(t: Test, through: Through, proxy: RunningProxy, api: TestApi) {
  const userId = await createUser(api.pool, { name: 'alice' });
  const given = { userId, trafficLimitBytes: null, expiresAt: null };
  const { subscriptionId } = await createSubscription(api.pool, given);
  const token = await createPage(api.pool, subscriptionId);
  const plain = await through('GET', `/sub/${token}?format=mihomo`);
  t.equal(plain.status, 200);
  t.match(plain.headers, { 'subscription-userinfo': 'upload=0; download=0; total=0; expire=0' });
  const gzip = await through('GET', `/sub/${token}?format=mihomo`, {
    headers: { 'accept-encoding': 'gzip' },
  });
  t.equal(gzip.headers['content-encoding'], 'gzip');
  t.same(gunzipSync(gzip.body), plain.body);
  const known = { 'if-none-match': String(plain.headers['etag']) };
  const again = await through('GET', `/sub/${token}?format=mihomo`, { headers: known });
  t.equal(again.status, 304);
  const unknown = await through('GET', '/sub/unknown');
  t.equal(unknown.status, 404);
  const own = connectionsTo(proxy, '127.0.0.67');
  for (let count = 0; count < 20; count += 1) {
    await sendThrough(proxy, own, 'GET', '/sub/unknown');
  }
  t.equal((await sendThrough(proxy, own, 'GET', '/sub/unknown')).status, 429);
  own.destroy();
  t.equal((await through('GET', `/sub/${token}`)).status, 200, 'nobody else is limited');
}

for (const [name, startProxy] of programs) {
  t.test(`${name} with the file of deploy/proxy/ passes on what nodes send`, async (t) => {
    const api = await startTestApi(t, settings);
    const proxy = await startProxy(t, api.port);
    const agent = connectionsTo(proxy);
    t.teardown(() => agent.destroy());
    const through: Through = (method, path, options) =>
      sendThrough(proxy, agent, method, path, options);

    const { code } = await api.issueCode();
    const body = JSON.stringify({ ...node, code });
    const registered = await through('POST', '/node/register', { body });
    t.equal(registered.status, 200);
    const { authKey } = JSON.parse(registered.body.toString());
    const key = { 'x-node-auth-key': authKey };

    await t.test('usage: compressed, chunked and plain', (t) => checkUsage(t, through, key));
    await t.test('a configuration: compressed, and unchanged', (t) =>
      checkConfiguration(t, through, key),
    );
    await t.test('what Core refuses, and what never reaches it', (t) =>
      checkRefusals(t, through, key),
    );
    await t.test('many requests on few connections', (t) => checkMany(t, through, key));
    await t.test('the lock-out for wrong codes goes by the address of the client', (t) =>
      checkLockOut(t, proxy, api),
    );
    await t.test('pages for client apps', (t) => checkPages(t, through, proxy, api));
  });
}

for (const [name, startProxy] of programs) {
  t.test(`${name} logs no address of a page, even if it cannot reach Core`, async (t) => {
    const [nobody = 0] = await freePorts(1);
    const proxy = await startProxy(t, nobody);
    const agent = connectionsTo(proxy);
    t.teardown(() => agent.destroy());
    const token = 'a-token-that-is-in-no-log';
    t.equal((await sendThrough(proxy, agent, 'GET', `/sub/${token}`)).status, 502);
    t.equal((await sendThrough(proxy, agent, 'GET', '/node/config/latest')).status, 502);
    // Debian's Caddy logs neither failure; nginx logs the one that holds no secret.
    if (name === 'nginx') {
      await until(
        () => Promise.resolve(proxy.logged()),
        (logged) => logged.includes('/node/config/latest'),
      );
    }
    t.notMatch(proxy.logged(), token);
  });
}
