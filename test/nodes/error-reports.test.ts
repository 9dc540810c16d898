import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import t from 'tap';
import { startApi } from '../../src/app/api.ts';
import { limits } from '../../src/contract/limits.ts';
import { keptDetails } from '../../src/nodes/kept-details.ts';
import { listErrors } from '../../src/nodes/reports.ts';
import { storableText } from '../../src/text.ts';
import { post, registerTestNode, startTestApi } from '../support/api.ts';

/** A value with every text as Postgres can store it. */
function storable(value: unknown): unknown {
  if (typeof value === 'string') return storableText(value);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(storable);
  return Object.fromEntries(
    Object.entries(value).map(([name, one]) => [storableText(name), storable(one)]),
  );
}

const depthOf = (value: unknown): number =>
  typeof value !== 'object' || value === null
    ? 0
    : 1 + Math.max(0, ...Object.values(value).map(depthOf));
const widthOf = (value: unknown): number => {
  if (typeof value !== 'object' || value === null) return 0;
  const inside = Object.values(value);
  return Math.max(inside.length, ...inside.map(widthOf));
};

t.test(
  'details within the limits stay as they are, except for characters that Postgres cannot hold',
  async (t) => {
    const details = fc.dictionary(
      fc.string({ unit: 'binary' }),
      fc.jsonValue({ stringUnit: 'binary' }),
      {
        maxKeys: 20,
      },
    );
    const property = fc.property(details, (given) => {
      const value = JSON.parse(JSON.stringify(given));
      if (JSON.stringify(value).length > 4_000) return;
      t.same(JSON.parse(keptDetails(value)), storable(value));
    });
    fc.assert(property, { numRuns: 500 });
  },
);

t.test('details beyond the limits are cut and marked', async (t) => {
  const nested = (levels: number, inner: unknown = 1) =>
    JSON.parse(`${'{"a":['.repeat(levels)}${JSON.stringify(inner)}${']}'.repeat(levels)}`);
  const given: Record<string, Record<string, unknown>> = {
    deep: { a: nested(10_000) },
    wide: { a: Array.from({ length: 60_000 }, () => []) },
    'many names': Object.fromEntries(Array.from({ length: 10_000 }, (_, at) => [`n${at}`, at])),
    'a long text': { log: 'x'.repeat(100_000), after: 1 },
    'a long text of escapes': { log: '\u0001"\\'.repeat(30_000) },
    'a long text of pairs': { log: '\u{1f600}'.repeat(50_000) },
    'a long name': { ['n'.repeat(100_000)]: 1 },
    'many long texts': Object.fromEntries(
      Array.from({ length: 100 }, (_, at) => [`n${at}`, 'é'.repeat(900)]),
    ),
    'long numbers in many arrays': {
      a: nested(15, Array(256).fill(Array(256).fill(-1.7976931348623157e308))),
    },
    'its own mark': { '(cut)': 'x'.repeat(20_000) },
  };
  for (const [name, details] of Object.entries(given)) {
    const text = keptDetails(details);
    const bytes = Buffer.byteLength(text);
    t.ok(bytes <= limits.errorDetailsKeptBytesMax, `${name}: ${bytes} bytes`);
    const kept = JSON.parse(text);
    t.match(kept['(cut)'], /^Core keeps 16384 bytes, 32 levels, 256 members each$/, name);
    t.ok(depthOf(kept) <= limits.errorDetailsKeptLevelsMax, `${name}: ${depthOf(kept)} levels`);
    t.ok(
      widthOf(kept) <= limits.errorDetailsKeptMembersMax + 1,
      `${name}: ${widthOf(kept)} members`,
    );
    t.equal(storableText(text), text, `${name}: no character is cut in half`);
  }
  const log = JSON.parse(keptDetails({ log: 'x'.repeat(100_000) })).log;
  t.ok(log.length > 15_000, 'the text fills most of the limit');
  t.ok(log.endsWith('x…'));
  t.same(JSON.parse(keptDetails({ ok: 'x'.repeat(15_000) })), { ok: 'x'.repeat(15_000) });
});

t.test('__proto__ is a name like others', async (t) => {
  const text = keptDetails(JSON.parse('{"__proto__":{"polluted":1},"constructor":2}'));
  t.equal(text, '{"__proto__":{"polluted":1},"constructor":2}');
});

t.test('a report keeps everything except characters that Postgres cannot hold', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const report =
    '{"message":"a\\u0000b\\ud800c\\u001b","code":"\\udc00","details":{"k\\u0000\\ud83d":["\\u0000\\udfff\\ud83d\\ude00"]}}';
  t.equal((await post(api, '/node/error', report, { node })).status, 200);
  const [kept] = await listErrors(api.pool, node.nodeId);
  t.match(kept, {
    message: 'a\uFFFDb\uFFFDc\u001b',
    code: '\uFFFD',
    details: { 'k\uFFFD\uFFFD': ['\uFFFD\uFFFD\u{1f600}'] },
  });
  // The cast makes Postgres parse the details: a `json` column alone stores any text.
  const { rows } = await api.pool.query(
    'SELECT error_details::jsonb AS details, error_message FROM nodes WHERE id = $1',
    [node.nodeId],
  );
  t.same(rows, [{ details: kept?.details, error_message: kept?.message }]);
});

t.test('a report with the largest body is cut', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const head = '{"message":"m","details":{"a":[';
  const empty = '[],'.repeat((131_072 - head.length - 5) / 3);
  const headers = { 'content-encoding': 'gzip' };
  const body = gzipSync(`${head}${empty}[]]}}`);
  t.equal((await post(api, '/node/error', body, { node, headers })).status, 200);
  const [kept] = await listErrors(api.pool, node.nodeId);
  const arrays = kept?.details?.['a'];
  t.ok(Array.isArray(arrays) && arrays.length === limits.errorDetailsKeptMembersMax);
  for (const details of [[], 'x', null, 1]) {
    const refused = await post(api, '/node/error', { message: 'm', details }, { node });
    t.equal(refused.json.error?.code, 'VALIDATION_FAILED');
    t.same(refused.json.error?.issues?.[0]?.path, 'details');
  }
});

t.test('if Redis refuses to count, the answer is STORE_UNAVAILABLE', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const { redisPrefix } = api.config.stores;
  await api.redis.lpush(`${redisPrefix}:errors:${node.nodeId}`, 'no number');
  await api.redis.lpush(`${redisPrefix}:register:127.0.0.1`, 'no number');
  const dto = { code: 'NO', name: 'n', host: '', ip: '', region: '' };
  for (const reply of [
    await post(api, '/node/error', { message: 'm' }, { node }),
    await post(api, '/node/register', dto),
  ]) {
    t.equal(reply.status, 503);
    t.equal(reply.json.error?.code, 'STORE_UNAVAILABLE');
    t.ok(reply.headers['retry-after']);
  }
});

t.test('the limit of errors a minute holds over all processes', async (t) => {
  const api = await startTestApi(t, { CORE_NODE_ERRORS_MAX: '4' });
  const second = await startApi(api.config, api.log);
  t.teardown(() => second.close());
  const other = { url: `http://127.0.0.1:${second.port}`, agent: api.agent };
  const [node, neighbour] = [await registerTestNode(api), await registerTestNode(api)];
  const report = (at: typeof other, by = node) =>
    post(at, '/node/error', { message: 'xray: exit 23' }, { node: by });
  for (const at of [api, other, api, other]) t.equal((await report(at)).status, 200);
  for (const at of [api, other]) {
    const reply = await report(at);
    t.equal(reply.status, 429);
    t.equal(reply.json.error?.code, 'RATE_LIMITED');
    const seconds = Number(reply.headers['retry-after']);
    t.ok(seconds >= 1 && seconds <= 60, `Retry-After: ${seconds}`);
  }
  t.equal((await report(api, neighbour)).status, 200, 'each node has its own limit');
  t.equal((await listErrors(api.pool, node.nodeId)).length, 4);
  const key = `${api.config.stores.redisPrefix}:errors:${node.nodeId}`;
  t.ok((await api.redis.ttl(key)) > 0, 'the count expires');
  await api.redis.del(key);
  t.equal((await report(api)).status, 200);
});
