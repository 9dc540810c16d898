import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { startApi } from '../../src/app/api.ts';
import { revokeNode } from '../../src/nodes/change.ts';
import {
  get,
  post,
  registerTestNode,
  send,
  startTestApi,
  type TestApi,
  until,
  usageEntry,
} from '../support/api.ts';
import { startCore } from '../support/core-process.ts';
import { freePorts } from '../support/free-port.ts';
import { exchange } from '../support/raw-http.ts';

const codeOf = (body: Buffer): string => JSON.parse(body.toString()).error.code;

function headOf(authKey: string, path = '/node/usage'): string {
  return `POST ${path} HTTP/1.1\r\nHost: core\r\nx-node-auth-key: ${authKey}\r\n`;
}

t.test(
  'a body that is slow, stalls or never begins gets a 400 and a closed connection after the time-out',
  async (t) => {
    const api = await startTestApi(t, { CORE_BODY_SECONDS_MAX: '1' });
    const { authKey } = await registerTestNode(api);
    const head = headOf(authKey);
    for (const parts of [
      [`${head}Content-Length: 100\r\n\r\n`],
      [`${head}Content-Length: 100\r\n\r\n{"entries":`],
      [`${head}Content-Length: 100\r\n\r\n`, ...'{"entries":'],
      [`${head}Transfer-Encoding: chunked\r\n\r\n5\r\n{"ent\r\n`],
      [`${head}Content-Length: 2000000\r\n\r\n${' '.repeat(70_000)}`],
    ]) {
      const { answers, closed } = await exchange(api.port, parts);
      t.ok(closed);
      t.equal(answers.length, 1);
      t.equal(answers[0]?.status, 400);
      t.equal(codeOf(answers[0]?.body ?? Buffer.alloc(0)), 'MALFORMED_BODY');
      t.equal(answers[0]?.headers.get('connection')?.[0], 'close');
    }
    t.equal((await get(api, '/healthz')).status, 200);
  },
);

t.test('a declared length of 4 GB is refused at once and the connection closed', async (t) => {
  const api = await startTestApi(t);
  const { authKey } = await registerTestNode(api);
  for (const head of [headOf(authKey), headOf('A'.repeat(43)), headOf('x', '/nothing')]) {
    const { answers, closed } = await exchange(api.port, [
      `${head}Content-Length: 200000000\r\n\r\n{`,
    ]);
    t.ok(closed);
    t.equal(answers.length, 1);
    t.ok([401, 404, 413].includes(answers[0]?.status ?? 0));
    t.equal(answers[0]?.headers.get('connection')?.[0], 'close');
    // Past 999,999,999 uWebSockets.js closes before Core hears of the request.
    const huge = await exchange(api.port, [`${head}Content-Length: 4294967296\r\n\r\n{`]);
    t.ok(huge.closed);
    t.ok(huge.answers.length <= 1);
  }
  t.equal((await get(api, '/healthz')).status, 200);
});

t.test('a head in two packets without a body is answered', async (t) => {
  const api = await startTestApi(t);
  const { authKey } = await registerTestNode(api);
  const text = `GET /node/config/latest HTTP/1.1\r\nHost: core\r\nx-node-auth-key: ${authKey}\r\nContent-Length: 0\r\n\r\n`;
  for (const cut of [1, 20, 60, 90, text.length - 3, text.length - 1]) {
    const { answers } = await exchange(api.port, [text.slice(0, cut), text.slice(cut)], {
      answersMax: 1,
    });
    t.equal(answers[0]?.status, 200, `cut at ${cut}`);
  }
});

t.test('a body in too many chunks that are too small is refused', async (t) => {
  const api = await startTestApi(t);
  const { authKey } = await registerTestNode(api);
  const chunked = (bytes: number, chunkBytes: number): string => {
    const chunk = `${chunkBytes.toString(16)}\r\n`;
    const body = '{"entries":[]}'.padEnd(bytes);
    const chunks = Array.from({ length: bytes / chunkBytes }, (_, index) => {
      return `${chunk}${body.slice(index * chunkBytes, (index + 1) * chunkBytes)}\r\n`;
    });
    return `${headOf(authKey)}Transfer-Encoding: chunked\r\n\r\n${chunks.join('')}0\r\n\r\n`;
  };
  for (const [bytes, chunkBytes] of [
    [1_000, 1],
    [400_000, 80],
  ] as const) {
    const { answers } = await exchange(api.port, [chunked(bytes, chunkBytes)]);
    t.equal(answers[0]?.status, 200, `${bytes} bytes in chunks of ${chunkBytes}`);
  }
  const { answers, closed } = await exchange(api.port, [chunked(20_000, 1)]);
  t.ok(closed);
  t.equal(answers.length, 1);
  t.equal(answers[0]?.status, 400);
  t.match(answers[0]?.body.toString(), /too many chunks that are too small/);
});

t.test('no kind of framing lets a second request in', async (t) => {
  const api = await startTestApi(t);
  const { authKey } = await registerTestNode(api);
  const body = JSON.stringify({ entries: [] });
  const hidden = 'GET /healthz?hidden HTTP/1.1\r\nHost: core\r\n\r\n';
  const chunked = `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
  const shapes: Record<string, string> = {
    'two lengths, the first short': `Content-Length: 0\r\nContent-Length: ${hidden.length}\r\n\r\n`,
    'two lengths, the last short': `Content-Length: ${hidden.length}\r\nContent-Length: 0\r\n\r\n`,
    'two equal lengths': `Content-Length: 14\r\nContent-Length: 14\r\n\r\n${body}`,
    'a list of lengths': `Content-Length: 0, ${hidden.length}\r\n\r\n`,
    'length, then chunked': `Content-Length: ${chunked.length}\r\nTransfer-Encoding: chunked\r\n\r\n${chunked}`,
    'chunked, then length': `Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n`,
    'an empty encoding': `Transfer-Encoding:\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    'another encoding': `Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n`,
    'two encodings': `Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n`,
    'an encoding header with a space': `Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n`,
    'a chunk extension': `Transfer-Encoding: chunked\r\n\r\ne;a=b\r\n${body}\r\n0\r\n\r\n`,
    'chunks, and more bytes after them': `Transfer-Encoding: chunked\r\n\r\n${chunked}`,
    'a chunk longer than it says': `Transfer-Encoding: chunked\r\n\r\n1\r\n${body}\r\n0\r\n\r\n`,
    'a negative length': 'Content-Length: -1\r\n\r\n',
    'a signed length': 'Content-Length: +0\r\n\r\n',
  };
  const everyShape = Object.entries(shapes).flatMap(([name, shape]) =>
    ['/node/usage', '/node/nothing', '/healthz'].map((path) => ({ name, shape, path })),
  );
  // All at once, because uWebSockets closes what it cannot read only after 10 s without traffic.
  await Promise.all(
    everyShape.map(async ({ name, shape, path }) => {
      const { answers, closed } = await exchange(api.port, [
        headOf(authKey, path) + shape + hidden,
      ]);
      t.ok(closed, `${name}: closed`);
      t.ok(answers.length <= 1, `${name}: one answer at most`);
      t.notOk(
        answers.some(
          ({ body: answered }) => answered.toString() === '{"ok":true}' && path !== '/node/usage',
        ),
        `${name}: the hidden request is not served`,
      );
    }),
  );
  const alone = await exchange(api.port, [
    `${headOf(authKey)}Content-Length: 14\r\nContent-Length: 14\r\n\r\n${body}`,
  ]);
  t.equal(alone.answers[0]?.status, 400);
  t.equal(codeOf(alone.answers[0]?.body ?? Buffer.alloc(0)), 'MALFORMED_BODY');
  const plain = await exchange(api.port, [
    `${headOf(authKey)}Transfer-Encoding: chunked\r\n\r\n${chunked}`,
  ]);
  t.equal(plain.answers[0]?.status, 200, 'a plain chunked body is taken');
  t.equal(plain.answers[0]?.headers.get('connection')?.[0], 'close', 'and its connection closed');
});

t.test('if a header comes twice, the first one counts', async (t) => {
  const api = await startTestApi(t);
  const { authKey } = await registerTestNode(api);
  const wrong = `x-node-auth-key: ${'A'.repeat(43)}\r\n`;
  const rest = 'Content-Length: 14\r\n\r\n{"entries":[]}';
  const first = await exchange(api.port, [headOf(authKey) + wrong + rest], { answersMax: 1 });
  t.equal(first.answers[0]?.status, 200);
  const last = await exchange(
    api.port,
    [`${headOf('A'.repeat(43))}x-node-auth-key: ${authKey}\r\n${rest}`],
    { answersMax: 1 },
  );
  t.equal(last.answers[0]?.status, 401);
});

t.test('a wrong key is refused before Core looks at the body', async (t) => {
  const api = await startTestApi(t);
  const gzip = { 'content-encoding': 'gzip' };
  for (const authKey of ['', 'short', 'A'.repeat(43)]) {
    const node = { nodeId: 0, authKey };
    for (const [body, headers] of [
      ['{', {}],
      [gzipSync(Buffer.alloc(50_000_000)), gzip],
      ['not gzip', gzip],
      ['x', { 'content-type': 'text/plain' }],
    ] as const) {
      const reply = await post(api, '/node/usage', body, { node, headers });
      t.equal(reply.status, 401);
      t.equal(reply.json.error?.code, 'UNAUTHORIZED');
    }
  }
});

t.test('Core reads almost nothing of a large body with a wrong key', async (t) => {
  const api = await startTestApi(t);
  const wrong = headOf('A'.repeat(43));
  const bodyBytes = 4_000_000;
  for (const head of [
    `${wrong}Content-Length: ${bodyBytes}\r\n\r\n`,
    `${wrong}Transfer-Encoding: chunked\r\n\r\n${bodyBytes.toString(16)}\r\n`,
  ]) {
    // Only the first byte of the body ever comes, so an answer shows that Core waits for no more.
    const { answers, closed } = await exchange(api.port, [head, '{']);
    t.ok(closed);
    t.equal(answers.length, 1);
    t.equal(answers[0]?.status, 401);
    t.equal(answers[0]?.headers.get('connection')?.[0], 'close');
  }
  const node = await registerTestNode(api);
  const entries = Array.from({ length: 9_000 }, (_, index) => usageEntry({ userId: index + 1 }));
  const reply = await post(api, '/node/usage', { entries }, { node });
  t.equal(reply.status, 200, 'a large body is taken if its key has to be looked up first');
});

t.test('a sender without a key may send 16 KiB', async (t) => {
  const api = await startTestApi(t);
  const dto = { code: 'NOPE', name: 'n', host: 'h', ip: '192.0.2.1', region: 'r' };
  const gzip = { 'content-encoding': 'gzip' };
  const fits = { ...dto, ignored: 'x'.repeat(16_000) };
  t.equal((await post(api, '/node/register', fits)).status, 403);
  const over = { ...dto, ignored: 'x'.repeat(17_000) };
  for (const [body, headers] of [
    [over, {}],
    [gzipSync(JSON.stringify(over)), gzip],
  ] as const) {
    const reply = await post(api, '/node/register', body, { headers });
    t.equal(reply.status, 413);
    t.equal(reply.json.error?.code, 'BODY_TOO_LARGE');
  }
  const head = 'POST /node/register HTTP/1.1\r\nHost: core\r\n';
  const { answers, closed } = await exchange(api.port, [`${head}Content-Length: 70000\r\n\r\n{`]);
  t.ok(closed, 'a longer one is not even read');
  t.equal(answers[0]?.status, 413);
});

t.test(
  'each route takes the largest body that fits it, plain and gzip, and not a byte more',
  async (t) => {
    const api = await startTestApi(t);
    const node = await registerTestNode(api);
    const registration = { code: 'NOPE', name: 'n', host: 'h', ip: '1.2.3.4', region: 'r' };
    const routes: [method: string, path: string, body: object, bytesMax: number, status: number][] =
      [
        ['POST', '/node/register', registration, 16_384, 403],
        ['POST', '/node/heartbeat', { revision: 1 }, 4_096, 200],
        ['POST', '/node/config/applied', { revision: 1 }, 1_024, 200],
        ['POST', '/node/error', { message: 'm' }, 131_072, 200],
        ['POST', '/node/usage', { entries: [usageEntry()] }, 4_194_304, 200],
        ['POST', '/node/outbound-usage', { items: [] }, 4_194_304, 200],
        ['POST', '/node/session-events', { events: [] }, 4_194_304, 200],
        ['GET', '/node/config/latest', {}, 1_024, 200],
        ['GET', '/healthz', {}, 1_024, 200],
      ];
    for (const [method, path, value, bytesMax, status] of routes) {
      const text = JSON.stringify(value);
      for (const over of [0, 1]) {
        const body = Buffer.from(text.padEnd(bytesMax + over));
        const gzip = { 'content-encoding': 'gzip' };
        const length = { 'content-length': String(body.length) };
        const replies = [await send(api, method, path, { node, body, headers: length })];
        if (method === 'POST') {
          const options = { node, headers: gzip, body: gzipSync(body) };
          replies.push(await send(api, method, path, options));
        }
        for (const reply of replies) {
          t.equal(reply.status, over === 0 ? status : 413, `${path}, ${body.length} bytes`);
          if (over === 1) t.equal(reply.json.error?.code, 'BODY_TOO_LARGE');
        }
      }
    }
  },
);

t.test('gzip bombs are 413 and cost no more than their bound', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  // 400 MB in 400 KB, eight at once: decompressed they would be 3.2 GB.
  const bomb = gzipSync(Buffer.alloc(400_000_000, 0x20));
  const send = () =>
    post(api, '/node/usage', bomb, { node, headers: { 'content-encoding': 'gzip' } });
  global.gc?.();
  const before = process.memoryUsage().rss;
  let peak = 0;
  const watch = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().rss);
  }, 5);
  const replies = await Promise.all(Array.from({ length: 8 }, send));
  clearInterval(watch);
  t.same(
    replies.map((reply) => reply.status),
    Array(8).fill(413),
  );
  t.ok(peak - before < 400_000_000, `${Math.round((peak - before) / 1e6)} MB more at the peak`);
});

t.test('guesses at codes are limited by address, over two processes', async (t) => {
  const api = await startTestApi(t, { CORE_REGISTRATION_FAILURES_MAX: '6' });
  const other = { ...(await secondApi(t, api)), agent: api.agent };
  for (let count = 0; count < 3; count += 1) {
    t.equal((await register(api)).status, 403);
    t.equal((await register(other)).status, 403);
  }
  for (const at of [api, other]) {
    const reply = await register(at);
    t.equal(reply.status, 429);
    t.equal(reply.json.error?.code, 'RATE_LIMITED');
    t.ok(Number(reply.headers['retry-after']) >= 1);
  }
  const counted = () => api.redis.get(`${api.config.stores.redisPrefix}:register:127.0.0.1`);
  t.equal(await counted(), '8');
  for (const at of [api, other]) t.equal((await register(at)).status, 429);
  t.equal(await counted(), '8', 'a sender who is locked out costs Redis nothing more');
  const { code } = await api.issueCode();
  t.equal((await register(api, { code })).status, 200, 'a right code is still taken');
  t.equal((await register(api, { code })).status, 429, 'and a used one is a wrong one');
});

t.test('behind a proxy the lock-out hits the guesser and nobody else', async (t) => {
  const settings = { CORE_REGISTRATION_FAILURES_MAX: '3', CORE_TRUSTED_PROXIES: '127.0.0.0/8' };
  const api = await startTestApi(t, settings);
  const from = (forwardedFor: string, code = 'NOPE') => register(api, { code, forwardedFor });
  for (let count = 0; count < 3; count += 1) t.equal((await from('203.0.113.66')).status, 403);
  t.equal((await from('203.0.113.66')).status, 429);
  t.equal(
    (await from('198.51.100.7, 203.0.113.66')).status,
    429,
    'its own X-Forwarded-For does not help',
  );
  t.equal((await from('198.51.100.7')).status, 403, 'each address has its own count of failures');
  const { code } = await api.issueCode();
  t.equal((await from('198.51.100.7', code)).status, 200);
  const own = await api.issueCode();
  t.equal((await from('203.0.113.66', own.code)).status, 200);

  for (const host of ['1', '2', '3']) {
    t.equal((await from(`2001:db8:0:5::${host}`)).status, 403);
  }
  t.equal((await from('2001:db8:0:5:ffff::4')).status, 429, 'a host can choose within its /64');
  t.equal((await from('2001:db8:0:6::1')).status, 403);

  // Some proxies append a line of their own; the line before it is the sender's.
  const body = '{"code":"NOPE","name":"","host":"","ip":"","region":""}';
  const { answers } = await exchange(
    api.port,
    [
      `POST /node/register HTTP/1.1\r\nHost: core\r\nX-Forwarded-For: 198.51.100.8\r\n` +
        `X-Forwarded-For: 203.0.113.66\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    ],
    { answersMax: 1 },
  );
  t.equal(answers[0]?.status, 429);
});

t.test('without a trusted proxy nobody escapes the lock-out by a header', async (t) => {
  const api = await startTestApi(t, { CORE_REGISTRATION_FAILURES_MAX: '2' });
  for (const host of ['1', '2', '3']) {
    const reply = await register(api, { forwardedFor: `198.51.100.${host}` });
    t.equal(reply.status, host === '3' ? 429 : 403);
  }
});

t.test('a revoked key stops working on every process within a second', async (t) => {
  const api = await startTestApi(t);
  const other = { ...(await secondApi(t, api)), agent: api.agent };
  const node = await registerTestNode(api);
  const beat = (at: Pick<TestApi, 'url' | 'agent'>) => post(at, '/node/heartbeat', {}, { node });
  t.equal((await beat(api)).status, 200);
  t.equal((await beat(other)).status, 200);
  await revokeNode(api.pool, node.nodeId);
  await Promise.all(
    [api, other].map((at) =>
      until(
        () => beat(at),
        (reply) => reply.status === 401,
        1_000,
      ),
    ),
  );
});

t.test('the api answers while thousands of connections are idle', async (t) => {
  // The api is another process, because each end of a connection counts against its process's limit.
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const { stores } = api.config;
  const [port = 0, adminPort = 0] = await freePorts(2);
  const core = startCore(t, ['serve'], {
    CORE_PORT: String(port),
    CORE_ADMIN_PORT: String(adminPort),
    DATABASE_URL: stores.postgresUrl,
    REDIS_URL: stores.redisUrl,
    CLICKHOUSE_URL: stores.clickhouseUrl,
    CORE_REDIS_PREFIX: stores.redisPrefix,
  });
  const at = { url: `http://127.0.0.1:${port}`, agent: api.agent };
  await until(
    () =>
      get(at, '/healthz').then(
        (reply) => reply.status,
        () => 0,
      ),
    (status) => status === 200,
    60_000,
  );
  const idle: net.Socket[] = [];
  t.teardown(() => {
    for (const socket of idle) socket.destroy();
  });
  const count = openFilesMax() >= 12_000 ? 10_000 : 2_000;
  while (idle.length < count) {
    const batch = Array.from({ length: 200 }, () => net.connect(port, '127.0.0.1'));
    for (const socket of batch) socket.on('error', () => undefined);
    await Promise.all(batch.map((socket) => once(socket, 'connect')));
    idle.push(...batch);
    // Half of them are idle in the middle of a head.
    for (const socket of batch.slice(100)) socket.write('POST /node/usage HTTP/1.1\r\nHo');
  }
  for (let userId = 1; userId <= 20; userId += 1) {
    const reply = await post(at, '/node/usage', { entries: [usageEntry({ userId })] }, { node });
    t.equal(reply.status, 200);
  }
  core.signal('SIGTERM');
  t.equal((await core.exited).code, 0, 'and it stops cleanly');
});

function register(
  at: Pick<TestApi, 'url' | 'agent'>,
  { code = 'NOPE', forwardedFor }: { code?: string; forwardedFor?: string } = {},
) {
  const dto = { code, name: 'n', host: 'h', ip: '192.0.2.1', region: 'r' };
  const headers: Record<string, string> =
    forwardedFor === undefined ? {} : { 'x-forwarded-for': forwardedFor };
  return post(at, '/node/register', dto, { headers });
}

/** Another api on the same stores, as a second process would be. */
async function secondApi(t: Test, api: TestApi): Promise<{ url: string }> {
  const second = await startApi(api.config, api.log);
  t.teardown(() => second.close());
  return { url: `http://127.0.0.1:${second.port}` };
}

/** How many files this process may open; 0 if the system does not say. */
function openFilesMax(): number {
  try {
    const text = readFileSync('/proc/self/limits', 'latin1');
    return Number(/^Max open files\s+(\d+)/m.exec(text)?.[1] ?? 0);
  } catch {
    return 0;
  }
}
