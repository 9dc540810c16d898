import { pino } from 'pino';
import t from 'tap';
import { createNode } from '../../src/nodes/change.ts';
import { createPage, removePage, rotatePage } from '../../src/pages/tokens.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import { inTransaction } from '../../src/stores/postgres.ts';
import { addTraffic } from '../../src/subscriptions/add-traffic.ts';
import { changeSubscription } from '../../src/subscriptions/change.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { send, startTestApi, type TestApi, until } from '../support/api.ts';

const served = { CORE_SUBSCRIPTION_PAGES: 'true', CORE_PAGE_TITLE: 'Ωmega "VPN"' };
const xhttp = { network: 'xhttp', security: 'none' };

/** A subscription with a link of VLESS, one that only some apps can use, and one for Telegram. */
async function subscribe(api: TestApi, options: { limit?: number; expiresAt?: Date } = {}) {
  const { pool, config } = api;
  const node = { name: 'fra-1', region: 'eu', host: 'fra.example.net', ip: '' };
  const { nodeId } = await createNode(pool, node, config.nodes);
  await addProtocol(pool, { nodeId, protocol: 'VLESS', port: 443, settings: {} });
  await addProtocol(pool, { nodeId, protocol: 'VMESS', port: 444, settings: xhttp });
  await addProtocol(pool, { nodeId, protocol: 'MTPROTO', port: 445, settings: {} });
  const userId = await createUser(pool, { name: 'alice' });
  const { subscriptionId } = await createSubscription(pool, {
    userId,
    trafficLimitBytes: options.limit ?? null,
    expiresAt: options.expiresAt ?? null,
  });
  return { subscriptionId, token: await createPage(pool, subscriptionId) };
}

function get(api: TestApi, token: string, headers: Record<string, string> = {}, query = '') {
  return send(api, 'GET', `/sub/${token}${query}`, { headers });
}

async function move(api: TestApi, subscriptionId: number, bytesUp: number, bytesDown: number) {
  await inTransaction(api.pool, (client) =>
    addTraffic(client, {
      subscriptionIds: BigUint64Array.of(BigInt(subscriptionId)),
      bytesUp: BigUint64Array.of(BigInt(bytesUp)),
      bytesDown: BigUint64Array.of(BigInt(bytesDown)),
      rows: BigUint64Array.of(1n),
    }),
  );
}

t.test('a page is off unless a setting says otherwise', async (t) => {
  const api = await startTestApi(t);
  const { token } = await subscribe(api);
  const reply = await get(api, token);
  t.equal(reply.status, 404);
  t.match(reply.json, { error: { code: 'NOT_FOUND', message: 'There is no such route' } });
});

t.test('each app gets its links in the format that it takes', async (t) => {
  const api = await startTestApi(t, served);
  const { token } = await subscribe(api);

  const list = await get(api, token, { 'user-agent': 'v2rayNG/1.10.2', accept: '*/*' });
  t.equal(list.status, 200);
  t.equal(list.headers['content-type'], 'text/plain; charset=utf-8');
  const uris = Buffer.from(list.text, 'base64').toString().trimEnd().split('\n');
  t.equal(uris.length, 2);
  t.match(uris[0], /^vless:\/\/[0-9a-f-]{36}@fra\.example\.net:443\?.*#fra-1%20vless-443$/);
  t.match(uris[1], /^vmess:\/\//);
  t.equal(list.headers['x-links-left-out'], '1', 'the link for Telegram');

  const plain = await get(api, token, {}, '?format=plain');
  t.match(plain.text, /^vless:.*\nvmess:.*\ntg:\/\/proxy.*\n$/);
  t.equal(plain.headers['x-links-left-out'], undefined);

  const yaml = await get(api, token, { 'user-agent': 'clash-verge/v2.4.0' });
  t.equal(yaml.headers['content-type'], 'text/yaml; charset=utf-8');
  t.match(yaml.text, /# Left out:\n# {3}fra-1 vmess-\d+: mihomo has XHTTP with VLESS only\n/);
  t.match(yaml.text, 'server: "fra.example.net"');
  t.equal(yaml.headers['x-links-left-out'], '2');

  const json = await get(api, token, { 'user-agent': 'SFA/1.14.0 (sing-box 1.14.0)' });
  t.match(json.headers['content-type'], /^application\/json/);
  t.match(json.json, { outbounds: [{ tag: 'Proxy' }, { tag: 'Auto' }, { type: 'vless' }] });
  t.equal(json.headers['x-links-left-out'], '2');

  const browser = await get(api, token, { 'user-agent': 'Mozilla/5.0', accept: 'text/html,*/*' });
  t.match(browser.headers['content-security-policy'], /^default-src 'none'; style-src 'sha256-/);
  t.match(browser.text, '<h1>Ωmega &quot;VPN&quot;</h1>');
  t.match(browser.text, '<a href="vless://');
  t.match(browser.text, '<a href="tg://proxy?server=fra.example.net&amp;port=445');
  t.notMatch(browser.text, /<script|javascript:/i);
  t.equal(browser.headers['content-disposition'], undefined);

  const other = await get(api, token, {}, '?format=outline');
  t.equal(other.status, 400);
  t.match(other.json, { error: { code: 'INVALID_QUERY', message: /base64, plain, mihomo/ } });
});

t.test('headers say what is used and what is left', async (t) => {
  const api = await startTestApi(t, { ...served, CORE_PAGE_UPDATE_HOURS: '6' });
  const expiresAt = new Date('2040-01-01T00:00:00Z');
  const { subscriptionId, token } = await subscribe(api, { limit: 5_000, expiresAt });
  await move(api, subscriptionId, 300, 700);
  const reply = await get(api, token);
  t.match(reply.headers, {
    'subscription-userinfo': 'upload=300; download=700; total=5000; expire=2208988800',
    'profile-update-interval': '6',
    'profile-title': `base64:${Buffer.from('Ωmega "VPN"').toString('base64')}`,
    'content-disposition': `attachment; filename="_mega _VPN_"; filename*=UTF-8''%CE%A9mega%20%22VPN%22`,
    'cache-control': 'private, no-store',
    'referrer-policy': 'no-referrer',
  });
  const head = await send(api, 'HEAD', `/sub/${token}`);
  t.equal(head.status, 200);
  t.equal(head.text, '');
  t.equal(head.headers['content-length'], String(reply.text.length));
  t.equal(head.headers['etag'], reply.headers['etag']);
  const posted = await send(api, 'POST', `/sub/${token}`);
  t.equal(posted.status, 405);
  t.equal(posted.headers['allow'], 'GET, HEAD');
});

t.test('an app that has the page gets a 304, until traffic or links change', async (t) => {
  const api = await startTestApi(t, { ...served, CORE_PAGE_REQUESTS_MAX: '10000' });
  const { subscriptionId, token } = await subscribe(api);
  const first = await get(api, token);
  t.match(first.headers, { 'subscription-userinfo': 'upload=0; download=0; total=0; expire=0' });
  const known = { 'if-none-match': String(first.headers['etag']) };
  const again = await get(api, token, known);
  t.equal(again.status, 304);
  t.equal(again.text, '');
  t.equal(again.headers['subscription-userinfo'], first.headers['subscription-userinfo']);
  await move(api, subscriptionId, 1, 0);
  // A process may serve what it rendered a few seconds ago.
  const changed = await until(
    () => get(api, token, known),
    ({ status }) => status === 200,
  );
  t.match(changed.headers, { 'subscription-userinfo': /^upload=1;/ });
  t.equal(changed.text, first.text);
});

t.test('a subscription that is not active has a notice in place of its links', async (t) => {
  const api = await startTestApi(t, served);
  const { subscriptionId, token } = await subscribe(api);
  await changeSubscription(api.pool, subscriptionId, { disabled: true });
  const list = await get(api, token);
  t.equal(list.status, 200);
  const text = Buffer.from(list.text, 'base64').toString();
  t.match(text, /^vless:\/\/0{8}-[^@]+@127\.0\.0\.1:1\?.*#Subscription%20disabled\n$/);
  const yaml = await get(api, token, {}, '?format=clash');
  t.match(yaml.text, 'name: "Subscription disabled"');
  const html = await get(api, token, {}, '?format=html');
  t.match(html.text, '<p>Subscription disabled.</p>');
  t.notMatch(html.text, 'fra.example.net');
});

t.test('a token that is rotated, removed or made up finds the same nothing', async (t) => {
  const api = await startTestApi(t, served);
  const { subscriptionId, token } = await subscribe(api);
  const next = await rotatePage(api.pool, subscriptionId);
  const answers = [await get(api, token), await get(api, 'x'), await get(api, 'A'.repeat(1_000))];
  t.equal((await get(api, next)).status, 200);
  await removePage(api.pool, subscriptionId);
  answers.push(
    await until(
      () => get(api, next),
      ({ status }) => status === 404,
    ),
  );
  for (const { status, text } of answers) {
    t.equal(status, 404);
    t.equal(text, answers[0]?.text);
  }
  t.match(answers[0]?.json, { error: { code: 'NOT_FOUND', message: 'There is no such page' } });
});

async function statuses(count: number, ask: () => Promise<{ status: number }>): Promise<number[]> {
  const found: number[] = [];
  for (let asked = 0; asked < count; asked += 1) found.push((await ask()).status);
  return found;
}

t.test('a page, and an address, is answered so often in a minute', async (t) => {
  const api = await startTestApi(t, {
    ...served,
    CORE_PAGE_REQUESTS_MAX: '2',
    CORE_PAGE_ADDRESS_REQUESTS_MAX: '6',
    CORE_TRUSTED_PROXIES: '127.0.0.1',
  });
  const { token } = await subscribe(api);
  t.same(await statuses(3, () => get(api, token)), [200, 200, 429]);
  const limited = await get(api, token);
  t.match(limited.json, { error: { code: 'RATE_LIMITED', message: /^This page is asked for/ } });
  t.ok(Number(limited.headers['retry-after']) >= 1);
  t.same(await statuses(3, () => get(api, 'unknown')), [404, 404, 429], 'six of one address');
  const elsewhere = { 'x-forwarded-for': '198.51.100.7' };
  t.equal((await get(api, 'unknown', elsewhere)).status, 404, 'another address has its own');
});

t.test('no token is logged, and no label is what a client says', async (t) => {
  const lines: string[] = [];
  const log = pino({ level: 'trace' }, { write: (line) => lines.push(line) });
  const api = await startTestApi(t, served, log);
  const { token } = await subscribe(api);
  t.equal((await get(api, token)).status, 200);
  t.equal((await get(api, 'said-by-a-client')).status, 404);
  t.equal((await get(api, token, {}, '?format=said-by-a-client')).status, 400);
  const logged = lines.join('');
  t.match(logged, '/sub/:token');
  t.notMatch(logged, token);
  t.notMatch(logged, 'said-by-a-client');
  const metrics = await until(
    () => send(api.admin, 'GET', '/metrics'),
    ({ text }) => text.includes('core_page_requests_total{format="base64",outcome="served"} 1'),
  );
  t.match(metrics.text, 'core_page_requests_total{format="base64",outcome="unknown"} 1');
  t.notMatch(metrics.text, 'said-by-a-client');
});

t.test('a fault of Core is answered, and the next request is served', async (t) => {
  const api = await startTestApi(t, served);
  const { token } = await subscribe(api);
  await api.pool.query('ALTER TABLE subscription_pages RENAME TO away');
  t.match(await get(api, token), { status: 500, json: { error: { code: 'INTERNAL' } } });
  await api.pool.query('ALTER TABLE away RENAME TO subscription_pages');
  t.equal((await get(api, token)).status, 200);
});

t.test('Core keeps no token', async (t) => {
  const api = await startTestApi(t, served);
  const { token } = await subscribe(api);
  const { rows } = await api.pool.query('SELECT p::text AS text FROM subscription_pages p');
  t.equal(rows.length, 1);
  t.notMatch(rows[0].text, token);
});

t.test('an api that stops ends its thread', async (t) => {
  const api = await startTestApi(t, served);
  const { token } = await subscribe(api);
  t.equal((await get(api, token)).status, 200);
  await api.close();
});
