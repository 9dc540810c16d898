import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type net from 'node:net';
import path from 'node:path';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { account, linksOf } from '../../../examples/agent/account.ts';
import { createClient, type IngestPost } from '../../../examples/agent/client.ts';
import { drain } from '../../../examples/agent/drain.ts';
import { claimDataDir, loadOrRegister } from '../../../examples/agent/identity.ts';
import { type Baseline, type Ledger, openLedger } from '../../../examples/agent/ledger.ts';
import type { Settings } from '../../../examples/agent/settings.ts';
import type { NodeConfig, XrayInbound } from '../../../src/contract/node-config.ts';
import { createLogger } from '../../../src/log.ts';
import { freePorts } from '../../support/free-port.ts';
import { scratchFolder } from '../../support/scratch-folder.ts';

const uuid = '11111111-1111-4111-8111-111111111111';

function configOf(inbound: Partial<XrayInbound> = {}): NodeConfig {
  return {
    revision: 3,
    clientMap: { [uuid]: { userId: 1, subscriptionId: 7 } },
    services: {
      xray: {
        inbounds: [
          {
            tag: 'in-5',
            listen: '0.0.0.0',
            port: 4_430,
            protocol: 'vless',
            settings: { clients: [{ id: uuid, email: uuid }], decryption: 'none' },
            streamSettings: { network: 'raw', security: 'none' },
            sniffing: { enabled: true, destOverride: ['http', 'tls', 'quic'], routeOnly: true },
            ...inbound,
          } as XrayInbound,
        ],
        outbounds: [{ tag: 'direct', protocol: 'freedom', settings: {} }],
        routing: { domainStrategy: 'AsIs', rules: [] },
        policy: { levels: {}, system: {} },
        stats: {},
        api: { tag: 'api', listen: '127.0.0.1:10085', services: ['StatsService'] },
      },
    },
  } as NodeConfig;
}

const nothing: Baseline = { proxyId: '', counters: {}, online: {} };
const atMs = Date.parse('2026-11-24T10:00:00Z');
const count = (up: number, down: number) => ({
  [`user>>>${uuid}>>>traffic>>>uplink`]: up,
  [`user>>>${uuid}>>>traffic>>>downlink`]: down,
});

t.test('accounting: the difference to the baseline', async (t) => {
  const take = (
    before: Baseline,
    proxyId: string,
    counters: Record<string, number>,
    nowMs = atMs,
    online = new Map<string, string[]>(),
  ) => {
    const reading = { proxyId, counters, links: linksOf(configOf()), online };
    return account(before, reading, { nowMs, restMs: 10_000 });
  };
  const bytes = (posts: ReturnType<typeof take>['posts']) =>
    posts.flatMap((post) =>
      post.path === '/node/usage' ? post.body.entries.map((e) => [e.bytesUp, e.bytesDown]) : [],
    );
  const first = take(nothing, 'a', { ...count(10, 20), 'outbound>>>direct>>>traffic>>>uplink': 9 });
  t.same(first.posts, [
    {
      path: '/node/usage',
      body: {
        entries: [
          {
            userId: 1,
            subscriptionId: 7,
            nodeProtocolId: 5,
            bytesUp: 10,
            bytesDown: 20,
            recordedAt: '2026-11-24T10:00:00.000Z',
          },
        ],
      },
    },
    {
      path: '/node/outbound-usage',
      body: { items: [{ tag: 'direct', bytesUp: 9, bytesDown: 0 }] },
    },
    {
      path: '/node/session-events',
      body: {
        events: [
          {
            userId: 1,
            protocol: 'VLESS',
            eventType: 'ONLINE',
            occurredAt: '2026-11-24T10:00:00.000Z',
          },
        ],
      },
    },
  ]);
  const second = take(first.baseline, 'a', count(15, 20), atMs + 1_000);
  t.same(bytes(second.posts), [[5, 0]], 'the difference');
  t.same(take(second.baseline, 'a', count(15, 20), atMs + 2_000).posts, [], 'nothing has moved');
  t.same(
    bytes(take(second.baseline, 'b', count(3, 0)).posts),
    [[3, 0]],
    'a new process counts anew',
  );
  t.same(
    bytes(take(second.baseline, 'a', count(2, 20)).posts),
    [[2, 0]],
    'a lower value means a reset',
  );
  const rest = take(second.baseline, 'a', count(15, 20), atMs + 11_000);
  t.match(rest.posts, [
    { body: { events: [{ eventType: 'OFFLINE', occurredAt: '2026-11-24T10:00:01.000Z' }] } },
  ]);
  t.same(rest.baseline.online, {});
  const stopped = account(second.baseline, undefined, { nowMs: atMs + 11_000, restMs: 10_000 });
  t.same(
    stopped.baseline.counters,
    second.baseline.counters,
    'without a proxy users can only go offline',
  );
  t.equal(stopped.posts.length, 1);

  const open = new Map([[uuid, ['[2001:db8::1]', '198.51.100.7']]]);
  const opened = take(nothing, 'a', count(0, 0), atMs, open);
  t.match(
    opened.posts,
    [{ body: { events: [{ eventType: 'ONLINE', ipAddress: '2001:db8::1' }] } }],
    'Xray names who has a session open, even at rest',
  );
  t.equal(take(opened.baseline, 'a', count(0, 0), atMs + 60_000, open).posts.length, 0);
});

t.test('many users are split into several bodies', async (t) => {
  const config = configOf();
  const counters: Record<string, number> = {};
  const clients = Array.from({ length: 12_000 }, (_, index) => `user-${index}`);
  for (const email of clients) {
    config.clientMap[email] = { userId: 1, subscriptionId: null };
    counters[`user>>>${email}>>>traffic>>>uplink`] = 1;
  }
  const inbound = config.services.xray?.inbounds[0];
  if (inbound !== undefined) {
    inbound.settings = {
      clients: clients.map((email) => ({ id: email, email })),
      decryption: 'none',
    };
  }
  const { posts } = account(
    nothing,
    { proxyId: 'a', counters, links: linksOf(config), online: new Map() },
    { nowMs: atMs, restMs: 1 },
  );
  const sizes = posts.flatMap((post) =>
    post.path === '/node/usage' ? [post.body.entries.length] : [],
  );
  t.same(sizes, [5_000, 5_000, 2_000]);
});

const usagePost: IngestPost = { path: '/node/usage', body: { entries: [] } };

t.test('ledger: posts and baseline are one commit', async (t) => {
  const dir = scratchFolder(t);
  const open = () => openLedger(dir, { bytesMax: 400 });
  const ledger = open();
  const { signal } = new AbortController();
  ledger.commit([usagePost, usagePost], { ...nothing, proxyId: 'p1' });
  const post = await ledger.next(signal);
  t.equal(post?.body, '{"entries":[]}');
  const spool = path.join(dir, 'spool');
  const names = readdirSync(spool).sort();
  t.equal(names.length, 2);

  // The state after a crash between the commit and the second file.
  const posts = names.map((name) => JSON.parse(readFileSync(path.join(spool, name), 'utf8')));
  const baseline = { ...nothing, proxyId: 'p1' };
  writeFileSync(path.join(dir, 'journal.json'), JSON.stringify({ sequence: 1, baseline, posts }));
  rmSync(path.join(spool, names[1] ?? ''));
  writeFileSync(path.join(spool, `${names[1]}.tmp`), 'half a fi');
  const again = open();
  t.same(readdirSync(spool).sort(), names, 'both files are there, and half a file is gone');
  t.equal(again.baseline().proxyId, 'p1');
  t.equal(again.size().posts, 2);
  t.same(await again.next(signal), post, 'the same bytes under the same key, oldest first');

  again.commit([usagePost], { ...nothing, proxyId: 'p2' });
  t.ok(again.isFull());
  if (post !== undefined) again.drop(post);
  const second = await again.next(signal);
  t.throws(() => post && again.drop(post), 'only the oldest post can be dropped');
  if (second !== undefined) again.setAside(second, { status: 400 });
  t.equal(readdirSync(path.join(dir, 'refused')).length, 2, 'the post and the answer');
  const last = open();
  t.equal(last.size().posts, 1);
  t.equal(last.baseline().proxyId, 'p2');
});

interface Call {
  path: string;
  headers: http.IncomingHttpHeaders;
  body: Buffer;
}

/** A server that answers each request with the next of these answers. */
async function serve(
  t: Test,
  answers: { status: number; headers?: Record<string, string>; body?: string }[],
): Promise<{ url: string; calls: Call[] }> {
  const calls: Call[] = [];
  const server = http.createServer(async (request, response) => {
    calls.push({
      path: request.url ?? '',
      headers: request.headers,
      body: await buffer(request),
    });
    const answer = answers[calls.length - 1] ?? { status: 200, body: '{"ok":true}' };
    if (answer.status === 0) {
      request.destroy();
      return;
    }
    response.writeHead(answer.status, answer.headers);
    response.end(answer.body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`, calls };
}

const clientOf = (url: string, signal = new AbortController().signal) =>
  createClient({ url, timeoutMs: 10_000, backOffMsMax: 20, signal }, 'key');

t.test('client: the same bytes under the same number until Core has taken them', async (t) => {
  const { url, calls } = await serve(t, [
    { status: 503, headers: { 'retry-after': '1' }, body: '{"error":{"code":"BACKLOG_FULL"}}' },
    { status: 0 },
    { status: 502, body: '<html>bad gateway</html>' },
  ]);
  const body = JSON.stringify({ entries: 'x'.repeat(10_000) });
  t.same(await clientOf(url).deliver('/node/usage', body, { stream: uuid, number: 7 }), {
    kind: 'ok',
    value: { ok: true },
  });
  t.equal(calls.length, 4);
  for (const call of calls) {
    t.equal(call.headers['x-node-stream'], uuid);
    t.equal(call.headers['x-node-sequence'], '7');
    t.equal(call.headers['x-node-auth-key'], 'key');
    t.equal(call.headers['content-encoding'], 'gzip');
    t.equal(gunzipSync(call.body).toString(), body);
  }
});

t.test('client: refusals, an unchanged configuration, and nobody listening', async (t) => {
  const { url, calls } = await serve(t, [
    { status: 401, body: '{"error":{"code":"UNAUTHORIZED","message":"no"}}' },
    { status: 304 },
    { status: 200, body: '{"revision":4}' },
    { status: 429, headers: { 'retry-after': '7' } },
  ]);
  const client = clientOf(url);
  t.same(await client.deliver('/node/usage', '{}', { key: 'k' }), {
    kind: 'refused',
    status: 401,
    code: 'UNAUTHORIZED',
    message: 'no',
  });
  t.same(await client.config(4), { kind: 'notModified' });
  t.match(await client.config(undefined), { kind: 'ok', value: { revision: 4 } });
  t.match(await client.heartbeat({ revision: 1 }), { kind: 'away', retryAfterMs: 7_000 });
  t.same(
    calls.map((call) => [call.path, call.headers['if-none-match']]),
    [
      ['/node/usage', undefined],
      ['/node/config/latest', '"4"'],
      ['/node/config/latest', undefined],
      ['/node/heartbeat', undefined],
    ],
  );
  t.match(await clientOf('http://127.0.0.1:1').heartbeat({}), { kind: 'away' });
});

/** Lets the agent send its stored posts to this address until none is left. */
async function drainAll(ledger: Ledger, url: string): Promise<void> {
  const stop = new AbortController();
  const client = clientOf(url, stop.signal);
  const log = createLogger('silent');
  const draining = drain({ client, ledger, log, retryMs: 1, signal: stop.signal });
  while (ledger.size().posts > 0) await new Promise((resume) => setImmediate(resume));
  stop.abort();
  await draining;
}

t.test(
  'drain: in order; a post that Core will never take is set aside, any other refused post is kept',
  async (t) => {
    const dir = scratchFolder(t);
    const ledger = openLedger(dir, { bytesMax: 1e6 });
    ledger.commit([usagePost, usagePost, usagePost], nothing);
    const { url, calls } = await serve(t, [
      { status: 400, body: '{"error":{"code":"VALIDATION_FAILED","message":"m"}}' },
      { status: 200, body: '{"ok":true}' },
      { status: 401, body: '{"error":{"code":"UNAUTHORIZED","message":"m"}}' },
    ]);
    await drainAll(ledger, url);
    const numbers = calls.map((call) => call.headers['x-node-sequence']);
    t.same(numbers, ['1', '1', '2', '2', '3'], 'after a 401 the same post is sent again');
    const [, voided] = calls.map((call) => call.body.toString());
    t.equal(voided, '{"entries":[]}', 'a post without entries takes the number of the refused one');
    t.equal(new Set(calls.map((call) => call.headers['x-node-stream'])).size, 1);
    const refused = readdirSync(path.join(dir, 'refused')).sort();
    t.same(refused, ['000000000001-0000.answer.json', '000000000001-0000.json']);
    t.match(JSON.parse(readFileSync(path.join(dir, 'refused', refused[0] ?? ''), 'utf8')), {
      code: 'VALIDATION_FAILED',
    });
  },
);

t.test('drain: if Core has another body under a number, what waits is numbered anew', async (t) => {
  const dir = scratchFolder(t);
  const ledger = openLedger(dir, { bytesMax: 1e6 });
  ledger.commit([usagePost, usagePost, usagePost], nothing);
  const { url, calls } = await serve(t, [
    { status: 200, body: '{"ok":true}' },
    { status: 422, body: '{"error":{"code":"POST_NUMBER_REUSED","message":"m"}}' },
  ]);
  await drainAll(ledger, url);
  t.same(
    calls.map((call) => call.headers['x-node-sequence']),
    ['1', '2', '1', '2'],
  );
  const streams = calls.map((call) => call.headers['x-node-stream']);
  t.equal(streams[0], streams[1]);
  t.not(streams[1], streams[2], 'a new stream');
  t.equal(streams[2], streams[3]);
  t.same(readdirSync(path.join(dir, 'refused')), []);
  openLedger(dir, { bytesMax: 1e6 }).commit([usagePost], nothing);
  const [file = ''] = readdirSync(path.join(dir, 'spool'));
  const next = JSON.parse(readFileSync(path.join(dir, 'spool', file), 'utf8'));
  t.same(next.identity, { stream: streams[3], number: 3 }, 'and a restart goes on in it');
});

t.test('drain: a post of an earlier agent is sent with its key', async (t) => {
  const dir = scratchFolder(t);
  const baseline = { ...nothing, proxyId: 'earlier' };
  const name = '000000000001-0000.json';
  const stored = { name, path: usagePost.path, idempotencyKey: 'k1', body: '{"entries":[]}' };
  mkdirSync(path.join(dir, 'spool'));
  writeFileSync(path.join(dir, 'spool', name), JSON.stringify(stored));
  const journal = { sequence: 1, baseline, posts: [] };
  writeFileSync(path.join(dir, 'journal.json'), JSON.stringify(journal));
  const ledger = openLedger(dir, { bytesMax: 1e6 });
  t.equal(ledger.baseline().proxyId, 'earlier');
  ledger.commit([usagePost], nothing);
  const { url, calls } = await serve(t, []);
  await drainAll(ledger, url);
  t.same(
    calls.map(({ headers }) => [headers['idempotency-key'], headers['x-node-sequence']]),
    [
      ['k1', undefined],
      [undefined, '1'],
    ],
  );
});

t.test('a registration without an answer names the address and the option', async (t) => {
  const [port] = await freePorts(1);
  const url = `http://127.0.0.1:${port}`;
  const where = { url, code: 'x', name: '', host: '', ip: '', region: '' };
  const settings = { ...where, dataDir: t.testdir({}) } as Settings;
  const options = {
    url,
    timeoutMs: 5_000,
    backOffMsMax: 1_000,
    signal: new AbortController().signal,
  };
  await t.rejects(loadOrRegister(settings, options), {
    message: new RegExp(`^${url} did not answer.*ECONNREFUSED.*--url`),
  });
});

t.test('one agent per data directory', async (t) => {
  const dir = mkdtempSync(path.join(scratchFolder(t), 'd'));
  const claim = claimDataDir(dir);
  t.throws(() => claimDataDir(dir), { message: /Another agent/ });
  claim.release();
  claimDataDir(dir).release();
  writeFileSync(path.join(dir, 'agent.lock'), '1-2-of another boot');
  claimDataDir(dir).release();
});
