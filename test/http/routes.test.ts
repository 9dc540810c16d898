import { randomUUID } from 'node:crypto';
import net from 'node:net';
import { gzipSync } from 'node:zlib';
import { pino } from 'pino';
import t from 'tap';
import { rekeyNode, revokeNode } from '../../src/nodes/change.ts';
import {
  get,
  post,
  registerTestNode,
  send,
  startTestApi,
  type TestApi,
  type TestNode,
  until,
  usageEntry,
  wideEntries,
} from '../support/api.ts';
import { freePorts } from '../support/free-port.ts';

/** Stream entries and rows of one kind in the spool, over all shards. */
async function inSpool(api: TestApi, kind: string): Promise<{ entries: number; rows: number }> {
  let entries = 0;
  let rows = 0;
  for (let shard = 0; shard < api.config.spool.shards; shard += 1) {
    const stream = `${api.config.stores.redisPrefix}:{s${shard}}:${kind}`;
    for (const [, fields] of await api.redis.xrange(stream, '-', '+')) {
      entries += 1;
      rows += Number(fields[1]);
    }
  }
  return { entries, rows };
}

t.test('registration', async (t) => {
  const api = await startTestApi(t, { CORE_REGISTRATION_FAILURES_MAX: '4' });
  const { code, nodeId } = await api.issueCode();
  const dto = { code, name: 'fra-1', host: 'fra-1.example.net', ip: '198.51.100.7', region: 'eu' };

  const missing = await post(api, '/node/register', { code });
  t.equal(missing.status, 400);
  t.same(
    missing.json.error?.issues?.map((issue) => issue.path),
    ['name', 'host', 'ip', 'region'],
  );

  const bad = {
    host: 'https://fra-1.example.net/',
    ip: 'not an ip',
    name: 'n\u009b2J',
    region: '\ud800',
  };
  const refusals = await post(api, '/node/register', { ...dto, ...bad });
  t.equal(refusals.status, 400);
  t.match(refusals.json.error, {
    code: 'VALIDATION_FAILED',
    issues: [
      { path: 'name', message: 'Must not hold the character U+009B (it is at place 2)' },
      { path: 'host', message: /^Must be a host name/ },
      { path: 'ip', message: /^Must be an IP address/ },
      { path: 'region', message: /U\+D800/ },
    ],
  });

  const registered = await post(api, '/node/register', dto);
  t.equal(registered.status, 200, 'a refused registration does not use up the code');
  t.equal(registered.json['nodeId'], nodeId);
  t.match(registered.json['authKey'], /^[A-Za-z0-9_-]{43}$/);

  const stored = await api.pool.query('SELECT * FROM nodes WHERE id = $1', [nodeId]);
  t.match(
    stored.rows[0],
    { name: 'test', host: '', region: 'eu', ip: '198.51.100.7' },
    'what the operator set',
  );
  t.match(
    stored.rows[0],
    { reported_name: 'fra-1', reported_host: 'fra-1.example.net', reported_region: 'eu' },
    'and next to it what the node reported',
  );

  const used = await post(api, '/node/register', dto);
  const unknown = await post(api, '/node/register', { ...dto, code: 'NOPE' });
  const late = await api.issueCode();
  await api.pool.query("UPDATE registration_codes SET expires_at = now() - interval '1 second'");
  const expired = await post(api, '/node/register', { ...dto, code: late.code });
  for (const refused of [used, unknown, expired]) {
    t.equal(refused.status, 403);
    t.equal(refused.text, used.text, 'used, unknown and expired codes look the same');
  }

  t.equal((await post(api, '/node/register', { ...dto, code: 'NOPE' })).status, 403);
  const limited = await post(api, '/node/register', { ...dto, code: 'NOPE' });
  t.equal(limited.status, 429);
  t.equal(limited.json.error?.code, 'RATE_LIMITED');
  t.ok(Number(limited.headers['retry-after']) >= 1);
});

t.test('keys', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const beat = (headers: Record<string, string>) => post(api, '/node/heartbeat', {}, { headers });

  t.equal((await beat({ 'x-node-auth-key': node.authKey })).status, 200);
  for (const headers of [
    {},
    { 'x-node-auth-key': 'short' },
    { 'x-node-auth-key': 'A'.repeat(43) },
  ] as Record<string, string>[]) {
    const reply = await beat(headers);
    t.equal(reply.status, 401);
    t.equal(reply.json.error?.code, 'UNAUTHORIZED');
  }

  await rekeyNode(api.pool, node.nodeId, api.config.nodes);
  await until(
    () => beat({ 'x-node-auth-key': node.authKey }),
    (reply) => reply.status === 401,
    1_000,
  );
  const other = await registerTestNode(api);
  t.equal((await beat({ 'x-node-auth-key': other.authKey })).status, 200);
  await revokeNode(api.pool, other.nodeId);
  await until(
    () => beat({ 'x-node-auth-key': other.authKey }),
    (reply) => reply.status === 401,
    1_000,
  );
});

t.test('heartbeat, config, applied and error', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const state = async () =>
    (
      await api.pool.query(
        'SELECT sync_status, applied_revision, ip, error_message, error_details, last_seen_at FROM nodes',
      )
    ).rows[0];

  t.same((await post(api, '/node/heartbeat', {}, { node })).json, { ok: true, needSync: true });
  const config = await get(api, '/node/config/latest', { node });
  t.equal(config.status, 200);
  t.same(config.json, { revision: 1, clientMap: {}, services: {} });
  t.equal(config.headers['etag'], '"1"');
  // The api hears of the first render by a notification. Until then it answers in full.
  const askAgain = () =>
    get(api, '/node/config/latest', {
      node,
      headers: { 'if-none-match': '"1"', 'cache-control': 'no-cache' },
    });
  const same = await until(askAgain, (reply) => reply.status === 304, 1_000);
  t.equal(same.text, '');
  const gzip = await get(api, '/node/config/latest', {
    node,
    headers: { 'accept-encoding': 'gzip' },
  });
  t.equal(gzip.headers['content-encoding'], 'gzip');
  t.same(gzip.json, config.json);

  const never = await post(api, '/node/config/applied', { revision: 2 }, { node });
  t.equal(never.status, 409);
  t.equal(never.json.error?.code, 'REVISION_NEVER_ISSUED');
  t.equal((await post(api, '/node/config/applied', { revision: 0 }, { node })).status, 409);

  const report = { message: 'xray: exit 23', code: 'XRAY', details: { line: 'a\u0000b' } };
  t.equal((await post(api, '/node/error', report, { node })).status, 200);
  t.match(await state(), { sync_status: 'failed', error_message: 'xray: exit 23' });
  t.same((await state()).error_details, { line: 'a\uFFFDb' }, 'Postgres cannot hold U+0000');

  t.same((await post(api, '/node/config/applied', { revision: 1 }, { node })).json, { ok: true });
  t.match(await state(), { sync_status: 'synced', applied_revision: 1, error_message: null });

  for (const ip of ['not an ip', 'fe80::1%eth0', '1.2.3.4\r\nX: y', 'fra-1.example.net', '1.2.3']) {
    const refused = await post(api, '/node/heartbeat', { revision: 1, ip }, { node });
    t.equal(refused.status, 400, ip);
    t.same(
      refused.json.error?.issues?.map((issue) => issue.path),
      ['ip'],
    );
  }
  const silent = await post(api, '/node/heartbeat', { revision: 1, ip: '' }, { node });
  t.equal(silent.status, 200, 'a node that does not know its address');
  const current = await post(api, '/node/heartbeat', { revision: 1, ip: '203.0.113.9' }, { node });
  t.same(current.json, { ok: true, needSync: false });
  await until(state, (row) => row.ip === '203.0.113.9');
  t.same((await post(api, '/node/heartbeat', { revision: 9 }, { node })).json['needSync'], true);
});

t.test('which entries are taken and which are refused', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const usage = (entries: unknown) => post(api, '/node/usage', { entries }, { node });

  for (const good of [
    {},
    { subscriptionId: null },
    { subscriptionId: undefined },
    { bytesUp: Number.MAX_SAFE_INTEGER, bytesDown: 0 },
    { recordedAt: '2026-11-24T12:00:00.123+02:00' },
    { recordedAt: '2020-01-01T00:00:00Z' },
    { recordedAt: '2024-02-29T00:00:00Z' },
    { somethingNew: { deep: [1] } },
  ]) {
    t.equal((await usage([usageEntry(good)])).status, 200, JSON.stringify(good));
  }
  const bad: [Record<string, unknown>, string][] = [
    [{ userId: 0 }, 'userId'],
    [{ userId: 1.5 }, 'userId'],
    [{ userId: '1' }, 'userId'],
    [{ subscriptionId: 0 }, 'subscriptionId'],
    [{ nodeProtocolId: undefined }, 'nodeProtocolId'],
    [{ bytesUp: -1 }, 'bytesUp'],
    [{ bytesDown: Number.MAX_SAFE_INTEGER + 1 }, 'bytesDown'],
    [{ recordedAt: 'yesterday' }, 'recordedAt'],
    [{ recordedAt: '2026-11-24T10:00:00' }, 'recordedAt'],
    [{ recordedAt: '2026-02-30T10:00:00Z' }, 'recordedAt'],
    [{ recordedAt: '2019-12-31T23:59:59Z' }, 'recordedAt'],
    [{ recordedAt: new Date(Date.now() + 86_500_000).toISOString() }, 'recordedAt'],
  ];
  for (const [fault, field] of bad) {
    const reply = await usage([usageEntry(), usageEntry(fault)]);
    t.equal(reply.status, 400, JSON.stringify(fault));
    t.equal(reply.json.error?.code, 'VALIDATION_FAILED');
    t.equal(reply.json.error?.issues?.[0]?.path, `entries[1].${field}`);
  }
  const many = await usage(Array.from({ length: 50 }, () => usageEntry({ userId: -1 })));
  t.equal(many.json.error?.issues?.length, 20);
  t.equal((await usage(Array.from({ length: 10_001 }, () => usageEntry()))).status, 400);
  t.equal((await usage([usageEntry()])).status, 200);
  t.equal((await usage([usageEntry()])).status, 200);
  t.same(await inSpool(api, 'usage'), { entries: 8, rows: 8 }, 'equal bytes count as a retry');

  t.equal((await usage([])).status, 200);
  t.equal((await post(api, '/node/outbound-usage', { items: [] }, { node })).status, 200);
  t.equal((await post(api, '/node/session-events', { events: [] }, { node })).status, 200);
  t.same(await inSpool(api, 'outbound'), { entries: 0, rows: 0 });

  const event = {
    userId: 4,
    protocol: 'vless',
    eventType: 'Online',
    occurredAt: '2026-11-24T10:00:00.123Z',
  };
  t.equal((await post(api, '/node/session-events', { events: [event] }, { node })).status, 200);
  const wrong = await post(
    api,
    '/node/session-events',
    { events: [{ ...event, protocol: 'PPTP' }] },
    { node },
  );
  t.equal(wrong.json.error?.issues?.[0]?.path, 'events[0].protocol');
  const tag = await post(
    api,
    '/node/outbound-usage',
    { items: [{ tag: 'a\u0000', bytesUp: 1, bytesDown: 1 }] },
    { node },
  );
  t.equal(tag.status, 400);
});

t.test('bodies', async (t) => {
  const api = await startTestApi(t, { CORE_BODY_BYTES_MAX: '65536' });
  const node = await registerTestNode(api);
  const body = JSON.stringify({ entries: [usageEntry()] });

  for (const broken of ['', '{', 'null x', '{"entries":[NaN]}', Buffer.from([0x22, 0xff, 0x22])]) {
    const reply = await post(api, '/node/usage', broken, { node });
    t.equal(reply.status, 400);
    t.equal(reply.json.error?.code, 'MALFORMED_JSON');
  }
  const text = await post(api, '/node/usage', body, {
    node,
    headers: { 'content-type': 'text/plain' },
  });
  t.equal(text.status, 415);
  const brotli = await post(api, '/node/usage', body, {
    node,
    headers: { 'content-encoding': 'br' },
  });
  t.equal(brotli.status, 415);

  const large = await post(api, '/node/usage', ' '.repeat(65_537), { node });
  t.equal(large.status, 413);
  t.equal(large.json.error?.code, 'BODY_TOO_LARGE');
  const gzip = { 'content-encoding': 'gzip' };
  const bomb = await post(api, '/node/usage', gzipSync(' '.repeat(10_000_000)), {
    node,
    headers: gzip,
  });
  t.equal(bomb.status, 413);
  const notGzip = await post(api, '/node/usage', body, { node, headers: gzip });
  t.equal(notGzip.status, 400);
  t.equal(notGzip.json.error?.code, 'MALFORMED_BODY');
  t.equal((await post(api, '/node/usage', gzipSync(body), { node, headers: gzip })).status, 200);

  const head = `POST /node/usage HTTP/1.1\r\nHost: x\r\nx-node-auth-key: ${node.authKey}\r\n`;
  const declared = await rawRequest(api, [`${head}Content-Length: 900000000\r\n\r\n{`]);
  t.match(declared, /^HTTP\/1\.1 413 /);

  const chunks = [...JSON.stringify({ entries: [usageEntry({ userId: 99 })] })];
  const slow = await rawRequest(api, [
    `${head}Content-Length: ${chunks.length}\r\n\r\n`,
    ...chunks,
  ]);
  t.match(slow, /^HTTP\/1\.1 200 /, 'a byte at a time');

  t.same(await inSpool(api, 'usage'), { entries: 2, rows: 2 });
});

t.test('methods, routes and health', async (t) => {
  const api = await startTestApi(t);
  t.same((await get(api, '/healthz')).json, { ok: true });
  const missing = await get(api, '/node/nothing');
  t.equal(missing.status, 404);
  t.equal(missing.json.error?.code, 'NOT_FOUND');
  const wrong = await get(api, '/node/usage');
  t.equal(wrong.status, 405);
  t.equal(wrong.headers['allow'], 'POST');
  const put = await send(api, 'PUT', '/node/config/latest');
  t.equal(put.status, 405);
  t.equal(put.headers['allow'], 'GET, HEAD');
  t.equal((await send(api, 'HEAD', '/node/usage')).headers['allow'], 'POST');
});

t.test('only operators get metrics', async (t) => {
  const api = await startTestApi(t);
  const shown = await get(api.admin, '/metrics');
  t.match(shown.text, /core_nodes\{status="online"\} 0/);
  t.match(shown.text, /^core_webhook_dead_letters 0$/m);
  const head = await send(api.admin, 'HEAD', '/metrics');
  t.equal(head.headers['content-type'], shown.headers['content-type']);
  t.ok(Number(head.headers['content-length']) > 0);
  t.same((await get(api.admin, '/healthz')).json, { ok: true });
  t.equal((await send(api.admin, 'POST', '/readyz')).headers['allow'], 'GET, HEAD');
  const node = await registerTestNode(api);
  for (const [at, path] of [
    [api, '/metrics'],
    [api.admin, '/node/config/latest'],
  ] as const) {
    const reply = await get(at, path, { node });
    t.equal(reply.status, 404);
    t.equal(reply.json.error?.code, 'NOT_FOUND');
  }
});

t.test('HEAD answers as GET does, without the body', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const gzip = { 'accept-encoding': 'gzip' };
  const { etag = '' } = (await get(api, '/node/config/latest', { node })).headers;
  const asked: [string, string, Parameters<typeof get>[2]][] = [
    ['healthz', '/healthz', {}],
    ['readyz', '/readyz', {}],
    ['a configuration', '/node/config/latest', { node }],
    ['a compressed configuration', '/node/config/latest', { node, headers: gzip }],
    [
      'a configuration that the node has',
      '/node/config/latest',
      { node, headers: { 'if-none-match': etag } },
    ],
    ['no key', '/node/config/latest', {}],
    ['a wrong key', '/node/config/latest', { node: { nodeId: 0, authKey: 'A'.repeat(43) } }],
    ['no such route', '/node/nothing', {}],
    ['a route of POST', '/node/usage', {}],
  ];
  for (const [name, path, options] of asked) {
    const expected = await get(api, path, options);
    // Uses the connection of the answer before, so an extra body would be read as this answer.
    const head = await send(api, 'HEAD', path, options);
    t.equal(head.status, expected.status, name);
    t.equal(head.text, '', name);
    const { date: _, 'x-request-id': id, ...headers } = head.headers;
    const { date: __, 'x-request-id': ___, ...expectedHeaders } = expected.headers;
    t.match(id, /^[0-9a-f]{8}-[0-9]{13}$/);
    t.same(headers, expectedHeaders, name);
  }
  t.ok(Number((await send(api, 'HEAD', '/healthz')).headers['content-length']) > 0);
});

t.test('a HEAD with unclear framing is answered, and its connection closed', async (t) => {
  const api = await startTestApi(t);
  for (const framing of [
    'Content-Length: 0\r\nContent-Length: 9\r\n\r\n',
    'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  ]) {
    // The answer has no body that would end it, so this waits until the connection is closed.
    const answered = await rawRequest(api, [`HEAD /healthz HTTP/1.1\r\nHost: x\r\n${framing}`]);
    t.match(answered, /\r\nConnection: close\r\n/);
    t.match(answered, /\r\nContent-Length: [1-9]\d*\r\n\r\n$/, 'a length, and no body');
  }
});

t.test('readyz names the store that is away, but only to operators', async (t) => {
  const ready = await startTestApi(t);
  t.same((await get(ready.admin, '/readyz')).json, { ok: true });
  t.same((await get(ready, '/readyz')).json, { ok: true });
  const [closedPort] = await freePorts(1);
  const api = await startTestApi(t, { CLICKHOUSE_URL: `http://127.0.0.1:${closedPort}/core` });
  const reply = await get(api.admin, '/readyz');
  t.equal(reply.status, 503);
  t.same(reply.json['away'], ['clickhouse']);
  t.match(reply.json.error?.message, /clickhouse/);
  t.ok(reply.headers['retry-after']);
  const shown = await get(api, '/readyz');
  t.equal(shown.status, 503);
  t.same(Object.keys(shown.json), ['error']);
  t.equal(shown.json.error?.code, 'STORE_UNAVAILABLE');
  t.notMatch(shown.text, /clickhouse|postgres|redis/i);
  t.ok(shown.headers['retry-after']);
});

t.test('a flood of readyz requests costs the stores nothing', async (t) => {
  const api = await startTestApi(t);
  const pings = async (): Promise<number> =>
    Number(/^cmdstat_ping:calls=(\d+)/m.exec(await api.redis.info('commandstats'))?.[1] ?? 0);
  const before = await pings();
  const requests = 2_000;
  for (let sent = 0; sent < requests; sent += 100) {
    const replies = await Promise.all(Array.from({ length: 100 }, () => get(api, '/readyz')));
    t.ok(replies.every(({ status }) => status === 200));
  }
  // Core pings once a second; other tests on the same server ping, too.
  t.ok((await pings()) - before < requests / 10);
  await get(api.admin, '/readyz');
  t.ok((await pings()) > before, "an operator's readyz pings Redis");
});

t.test('every answer has a type and an id, and ids follow the order of the requests', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const replies = [];
  // Enough requests for another digit in the ids, and answers of both kinds of headers.
  for (let round = 1; round <= 12; round += 1) {
    replies.push(await post(api, '/node/heartbeat', {}, { node }));
    replies.push(await post(api, '/node/usage', { entries: [usageEntry()] }, { node }));
    replies.push(await get(api, '/readyz'));
    replies.push(await post(api, '/node/usage', {}, { node }));
  }
  const ids = replies.map((reply) => String(reply.headers['x-request-id']));
  t.ok(ids.every((id) => /^[0-9a-f]{8}-[0-9]{13}$/.test(id)));
  t.equal(new Set(ids).size, replies.length);
  t.same(ids, ids.toSorted());
  t.ok(replies.every((reply) => reply.headers['content-type'] === 'application/json'));
});

t.test('no log line holds a key, a code or a body', async (t) => {
  const lines: string[] = [];
  const log = pino({ level: 'trace' }, { write: (line: string) => lines.push(line) });
  const api = await startTestApi(t, {}, log);
  const { code } = await api.issueCode();
  const dto = { code, name: 'n', host: 'h', ip: '1.2.3.4', region: 'eu' };
  const registered = await post(api, '/node/register', dto);
  const node = registered.json as unknown as TestNode;
  t.equal((await post(api, '/node/register', dto)).status, 403);
  t.equal((await post(api, '/node/usage', '{"secret', { node })).status, 400);
  t.equal((await post(api, '/node/usage', { entries: [{}] }, { node })).status, 400);
  const other = 'B'.repeat(43);
  const unknown = { nodeId: 0, authKey: other };
  t.equal((await post(api, '/node/usage', {}, { node: unknown })).status, 401);
  const refused = lines.map((line) => JSON.parse(line)).filter((line) => line.code !== undefined);
  t.same(
    refused.map((line) => line.code),
    ['REGISTRATION_REFUSED', 'MALFORMED_JSON', 'VALIDATION_FAILED', 'UNAUTHORIZED'],
  );
  t.ok(refused.every((line) => /^[0-9a-f]{8}-[0-9]{13}$/.test(line.requestId)));
  for (const secret of [node.authKey, code, other, '{"secret']) {
    t.notOk(lines.some((line) => line.includes(secret)));
  }
});

t.test('idempotency', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const other = await registerTestNode(api);
  const items = { items: [{ tag: 'direct', bytesUp: 1, bytesDown: 2 }] };
  const changed = { items: [{ tag: 'direct', bytesUp: 1, bytesDown: 3 }] };
  const outbound = (body: unknown, key?: string, by = node) =>
    post(api, '/node/outbound-usage', body, {
      node: by,
      headers: key === undefined ? {} : { 'idempotency-key': key },
    });

  const copies = await Promise.all(Array.from({ length: 50 }, () => outbound(items, 'k1')));
  t.ok(copies.every((reply) => reply.status === 200));
  t.equal((await inSpool(api, 'outbound')).rows, 1, '50 concurrent copies are one');
  const reused = await outbound(changed, 'k1');
  t.equal(reused.status, 422);
  t.equal(reused.json.error?.code, 'IDEMPOTENCY_KEY_REUSED');
  t.equal((await outbound(items, 'k1', other)).status, 200);
  t.equal((await inSpool(api, 'outbound')).rows, 2, 'a key belongs to its node');
  await outbound(items);
  await outbound(items);
  t.equal(
    (await inSpool(api, 'outbound')).rows,
    4,
    'outbound usage without a key counts every time',
  );
  t.equal((await outbound(items, 'x'.repeat(200))).status, 200);
  const long = await outbound(items, 'x'.repeat(201));
  t.equal(long.status, 400);
  t.equal(long.json.error?.code, 'INVALID_HEADER');

  const usage = { entries: [usageEntry()] };
  await post(api, '/node/usage', usage, { node });
  await post(api, '/node/usage', usage, { node });
  await post(api, '/node/usage', usage, { node: other });
  t.equal((await inSpool(api, 'usage')).rows, 2, 'equal bytes of one node are a retry');
});

t.test('a repeat without a number counts as new once its id has expired', async (t) => {
  const api = await startTestApi(t, { CORE_IDEMPOTENCY_SECONDS: '1' });
  const node = await registerTestNode(api);
  const body = { entries: [usageEntry()] };
  t.equal((await post(api, '/node/usage', body, { node })).status, 200);
  const keys = () => api.redis.keys(`${api.config.stores.redisPrefix}:posts:*`);
  await until(keys, (found) => found.length === 0);
  t.equal((await post(api, '/node/usage', body, { node })).status, 200);
  t.equal((await inSpool(api, 'usage')).rows, 2);
});

const noRows = {
  '/node/usage': { entries: [] },
  '/node/outbound-usage': { items: [] },
  '/node/session-events': { events: [] },
};

t.test('a key or a number is used by a post without rows, too', async (t) => {
  const api = await startTestApi(t);
  for (const [path, empty] of Object.entries(noRows)) {
    const node = await registerTestNode(api);
    const send = (body: unknown, headers: Record<string, string>) =>
      post(api, path, body, { node, headers });
    const changed = { ...empty, more: 1 };
    const key = { 'idempotency-key': 'a' };
    t.equal((await send(empty, key)).status, 200);
    t.equal((await send(empty, key)).status, 200);
    const reused = await send(changed, key);
    t.equal(reused.status, 422);
    t.equal(reused.json.error?.code, 'IDEMPOTENCY_KEY_REUSED', path);
    const number = { 'x-node-stream': randomUUID(), 'x-node-sequence': '1' };
    t.equal((await send(empty, number)).status, 200);
    t.equal((await send(empty, number)).status, 200);
  }
  for (const kind of ['usage', 'outbound', 'session'] as const) {
    t.equal((await inSpool(api, kind)).rows, 0);
  }
});

t.test('numbered posts', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const stream = randomUUID();
  const send = (path: string, body: unknown, sequence: string, of: string = stream) => {
    const headers = { 'x-node-stream': of, 'x-node-sequence': sequence };
    return post(api, path, body, { node, headers });
  };
  const items = { items: [{ tag: 'direct', bytesUp: 1, bytesDown: 2 }] };
  const usage = { entries: [usageEntry()] };
  // One sequence for all three routes, and not in order.
  t.equal((await send('/node/usage', usage, '3')).status, 200);
  t.equal((await send('/node/outbound-usage', items, '1')).status, 200);
  t.equal(
    (await send('/node/outbound-usage', items, '2')).status,
    200,
    'equal bytes, another post',
  );
  const copies = await Promise.all(
    Array.from({ length: 50 }, () => send('/node/outbound-usage', items, '4')),
  );
  t.ok(copies.every(({ status }) => status === 200));
  t.equal((await inSpool(api, 'outbound')).rows, 3);
  t.equal((await send('/node/usage', usage, '3', stream.toUpperCase())).status, 200);
  t.equal((await inSpool(api, 'usage')).rows, 1);

  const reused = await send('/node/usage', { entries: [usageEntry({ bytesUp: 9 })] }, '3');
  t.equal(reused.status, 422);
  t.equal(reused.json.error?.code, 'POST_NUMBER_REUSED');
  t.equal((await inSpool(api, 'usage')).rows, 1);
  t.equal((await send('/node/usage', usage, '3', randomUUID())).status, 200, 'another stream');
  t.equal((await inSpool(api, 'usage')).rows, 2);

  for (const [sequence, of] of [
    ['0', stream],
    ['', stream],
    ['1', 'not a UUID'],
    ['1', ''],
  ] as const) {
    const wrong = await send('/node/usage', usage, sequence, of);
    t.equal(wrong.status, 400);
    t.equal(wrong.json.error?.code, 'INVALID_HEADER');
  }
});

t.test('if the clock jumps a day, entries are taken or refused, and none is lost', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const usage = (recordedAt: string) =>
    post(api, '/node/usage', { entries: [usageEntry({ recordedAt })] }, { node });
  const now = Date.now();
  const at = (ms: number): string => new Date(now + ms).toISOString();
  const dayMs = 86_400_000;
  t.equal((await usage(at(1_000))).status, 200);
  api.setClock(() => now - dayMs);
  t.equal((await usage(at(-2_000))).status, 200, 'a day ahead of a clock that went back');
  const ahead = await usage(at(2_000));
  t.equal(ahead.status, 400, 'over a day ahead of it');
  t.equal(ahead.json.error?.issues?.[0]?.path, 'entries[0].recordedAt');
  t.equal((await post(api, '/node/heartbeat', {}, { node })).status, 200);
  api.setClock(() => now + dayMs);
  t.equal((await usage(at(2_000))).status, 200);
  t.equal((await post(api, '/node/heartbeat', {}, { node })).status, 200);
  t.equal((await inSpool(api, 'usage')).rows, 3);
});

t.test('a full backlog refuses and stores nothing', async (t) => {
  const api = await startTestApi(t, { CORE_SPOOL_BYTES_MAX: '1048576', CORE_SPOOL_SHARDS: '1' });
  const node = await registerTestNode(api);
  const fill = (userId: number) =>
    post(api, '/node/usage', { entries: wideEntries(8_000, userId) }, { node });
  for (let userId = 1; userId <= 3; userId += 1) t.equal((await fill(userId)).status, 200);
  const refused = await fill(4);
  t.equal(refused.status, 503);
  t.equal(refused.json.error?.code, 'BACKLOG_FULL');
  t.ok(Number(refused.headers['retry-after']) >= 1);
  t.equal((await inSpool(api, 'usage')).rows, 24_000);
  t.equal((await fill(3)).status, 200, 'a repeat of a stored post still gets a 200');
});

t.test('a process that stops answers what is in flight and refuses the rest', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const body = JSON.stringify({ entries: [usageEntry()] });
  const head = `POST /node/usage HTTP/1.1\r\nHost: x\r\nx-node-auth-key: ${node.authKey}\r\nContent-Length: ${body.length}\r\n\r\n`;
  const inFlight = await connect(api);
  inFlight.write(head + body.slice(0, 10));
  const gone = await connect(api);
  gone.write(head + body.slice(0, 10));
  const idle = await connect(api);
  // Once the server has answered on a later connection it has read what the earlier ones sent.
  await get(api, '/healthz');
  gone.destroy();

  const closing = api.close();
  idle.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
  t.match(await firstReply(idle), /^HTTP\/1\.1 503 [\s\S]*SHUTTING_DOWN/);
  const answer = firstReply(inFlight);
  inFlight.write(body.slice(10));
  t.match(await answer, /^HTTP\/1\.1 200 /);
  await closing;
  inFlight.destroy();
  idle.destroy();
  t.same(await inSpool(api, 'usage'), { entries: 1, rows: 1 });
  await t.rejects(connect(api), { code: 'ECONNREFUSED' }, 'nobody listens any more');
});

function connect(api: TestApi): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(api.port, '127.0.0.1', () => resolve(socket));
    socket.once('error', reject);
  });
}

/** The first answer on a connection, up to the end of its JSON body. */
function firstReply(socket: net.Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString();
      if (text.includes('}')) resolve(text);
    });
    socket.once('close', () => resolve(text));
    socket.once('error', reject);
  });
}

/** Sends each part in a packet of its own, and returns the first answer. */
async function rawRequest(api: TestApi, parts: readonly string[]): Promise<string> {
  const socket = await connect(api);
  socket.setNoDelay(true);
  const reply = firstReply(socket);
  for (const part of parts) {
    await new Promise<void>((resolve) => {
      socket.write(part, () => setImmediate(resolve));
    });
  }
  const text = await reply;
  socket.destroy();
  return text;
}
