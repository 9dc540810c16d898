import { once } from 'node:events';
import http from 'node:http';
import { buffer } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import t from 'tap';
import { judge } from '../harness/fuzz/judge.ts';
import { registerTestNode, startTestApi, usageEntry } from '../support/api.ts';

const event = {
  userId: 1,
  protocol: 'vless',
  eventType: 'ONLINE',
  occurredAt: '2026-01-01T00:00:00Z',
};
const registration = { code: 'NOPE', name: 'n', host: 'h', ip: '192.0.2.1', region: 'r' };
/** Each of these bodies is valid for some route. */
const bodies = [
  { entries: [usageEntry()] },
  { items: [{ tag: 'direct', bytesUp: 1, bytesDown: 2 }] },
  { events: [event] },
  { revision: 1 },
  { revision: 2 ** 31 },
  { revision: Number.MAX_SAFE_INTEGER },
  { ip: '203.0.113.9' },
  { message: 'x', details: { deep: [[{}]] } },
  registration,
];
const paths = [
  '/node/register',
  '/node/heartbeat',
  '/node/usage',
  '/node/outbound-usage',
  '/node/session-events',
  '/node/config/latest',
  '/node/config/applied',
  '/node/error',
  '/healthz',
  '/readyz',
  '/metrics',
];
const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD'];

const method = fc.oneof({ weight: 5, arbitrary: fc.constant('POST') }, fc.constantFrom(...methods));
const path = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(...paths) },
  fc.webPath().map((given) => given || '/'),
  fc.constantFrom(...paths).map((given) => `${given}/`),
);
const text = fc.string({ maxLength: 250, unit: 'grapheme-ascii' });
const header = fc.oneof(
  fc.tuple(fc.constant('idempotency-key'), fc.oneof(fc.constantFrom('k1', 'k2'), text)),
  fc.tuple(fc.constant('content-type'), fc.oneof(fc.constant('text/plain'), text)),
  fc.tuple(fc.constant('content-encoding'), fc.oneof(fc.constantFrom('gzip', 'br', 'GZIP'), text)),
  fc.tuple(fc.constant('if-none-match'), fc.oneof(fc.constantFrom('"1"', '*', 'W/"1"'), text)),
  fc.tuple(fc.constant('accept-encoding'), fc.oneof(fc.constant('gzip'), text)),
  fc.tuple(fc.stringMatching(/^x-[a-z]{1,20}$/), text),
);
const body = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom(...bodies).map((value) => Buffer.from(JSON.stringify(value))),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(...bodies).map((value) => gzipSync(JSON.stringify(value))),
  },
  fc.json().map((given) => Buffer.from(given)),
  fc.uint8Array({ maxLength: 300 }).map((given) => Buffer.from(given)),
  fc.nat(100_000).map((length) => Buffer.alloc(length, 0x20)),
);
const key = fc.oneof(
  { weight: 6, arbitrary: fc.constant('right') },
  fc.constantFrom('none', 'A'.repeat(43)),
  text,
);

t.test('every request gets an answer that the contract allows', async (t) => {
  const api = await startTestApi(t, { CORE_BODY_BYTES_MAX: '65536' });
  const node = await registerTestNode(api);
  const met = new Map<number, number>();
  const request = fc.record({
    method,
    path,
    headers: fc.array(header, { maxLength: 4 }),
    body,
    key,
  });
  const property = fc.asyncProperty(request, async (one) => {
    const headers: Record<string, string> = Object.fromEntries(
      one.headers.map(([name, value]) => [name, value.trim()]),
    );
    if (one.key !== 'none')
      headers['x-node-auth-key'] = one.key === 'right' ? node.authKey : one.key;
    // Set for every method. With GET, Node would send the body without its length, and the server would
    // read it as the next request.
    headers['content-length'] = String(one.body.length);
    const sent = http.request(api.url + one.path, {
      method: one.method,
      agent: api.agent,
      headers,
    });
    sent.end(one.body);
    const [response] = (await once(sent, 'response')) as [http.IncomingMessage];
    const answer = {
      status: response.statusCode ?? 0,
      headers: new Map(
        Object.entries(response.headersDistinct).map(([name, values]) => [name, values ?? []]),
      ),
      body: await buffer(response),
    };
    met.set(answer.status, (met.get(answer.status) ?? 0) + 1);
    const asked = { method: one.method, path: new URL(api.url + one.path).pathname };
    const fault = judge(answer, asked, [node.authKey]);
    if (fault !== undefined) throw new Error(fault);
  });
  await t.resolves(fc.assert(property, { numRuns: 800 }));
  for (const status of [200, 400, 401, 404, 405, 413, 415]) {
    t.ok(met.has(status), `some request was answered with ${status}`);
  }
});
