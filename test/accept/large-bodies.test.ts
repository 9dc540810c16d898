import path from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { requireFewValues } from '../../src/accept/decode.ts';
import { createLargeBodies, smallBodyBytesMax } from '../../src/accept/large-bodies.ts';
import { packBody } from '../../src/accept/pack-body.ts';
import { limits } from '../../src/contract/limits.ts';
import { ingestSchemas } from '../../src/contract/node.ts';
import { CoreError } from '../../src/errors.ts';
import type { Kind } from '../../src/spool/streams.ts';
import { post, registerTestNode, startTestApi, usageEntry } from '../support/api.ts';

const atMs = Date.parse('2026-11-25T00:00:00Z');
const options = { entriesMax: 10_000, nowMs: () => atMs };
const nodeId = 7;

function largeBodies(t: Test, file?: string) {
  const bodies = createLargeBodies(file === undefined ? options : { ...options, file });
  t.teardown(() => bodies.close());
  return bodies;
}

const sessionEvent = (index: number) => ({
  userId: index + 1,
  protocol: 'vless',
  eventType: 'ONLINE',
  occurredAt: '2026-11-24T10:00:00.123Z',
  ipAddress: '2001:db8::1',
});
const list = (length: number, make: (index: number) => unknown) =>
  Array.from({ length }, (_, at) => make(at));
const body = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

/** What became of a body: its rows, or everything that the node is told. */
async function outcome(pack: () => unknown): Promise<unknown> {
  try {
    return await pack();
  } catch (thrown) {
    if (!(thrown instanceof CoreError)) throw thrown;
    const { code, status, message, issues, headers } = thrown;
    return { code, status, message, issues, headers };
  }
}
const codeOf = async (packed: Promise<unknown>): Promise<unknown> =>
  ((await outcome(() => packed)) as { code?: unknown }).code;

t.test('the thread gives the same rows and errors as this process', async (t) => {
  const bodies = largeBodies(t);
  const schemas = ingestSchemas(options);
  const given: [Kind, unknown][] = [
    [
      'usage',
      { entries: list(3_000, (index) => ({ ...usageEntry({ userId: index + 1 }), odd: [] })) },
    ],
    ['usage', { entries: [...list(999, () => usageEntry()), {}] }],
    ['usage', { entries: [usageEntry({ recordedAt: '2026-11-26T00:00:00Z' })] }],
    ['usage', { entries: [usageEntry({ recordedAt: '2026-11-26T00:00:01Z' })] }],
    ['usage', { entries: list(10_001, () => 1) }],
    ['usage', []],
    ['session', { events: list(3_000, sessionEvent) }],
    ['session', { events: list(3_000, () => ({})) }],
    [
      'outbound',
      { items: list(3_000, (index) => ({ tag: `é${index}`, bytesUp: 1, bytesDown: 2 })) },
    ],
  ];
  for (const [kind, value] of given) {
    const one = { kind, nodeId, body: body(value) };
    t.same(await outcome(() => bodies.pack(one)), await outcome(() => packBody(schemas, one)));
  }
  const broken = { kind: 'usage', nodeId, body: Buffer.from('{"entries":[') } as const;
  t.equal(await codeOf(bodies.pack(broken)), 'MALFORMED_JSON');
});

t.test('a body of too many values is refused, whatever the values are', async (t) => {
  const bodies = largeBodies(t);
  const many = options.entriesMax * limits.valuesPerEntryMax + 1;
  for (const text of [
    '['.repeat(many),
    `[${'{},'.repeat(many)}{}]`,
    `{"entries":[${'0,'.repeat(many)}0]}`,
  ]) {
    t.match(await outcome(() => bodies.pack({ kind: 'usage', nodeId, body: Buffer.from(text) })), {
      code: 'VALIDATION_FAILED',
      issues: [{ path: '', message: 'Too many values: over 250000' }],
    });
  }
  const text = `{"entries":[],"more":"${'[,{'.repeat(many)}"}`;
  const taken = bodies.pack({ kind: 'usage', nodeId, body: Buffer.from(text) });
  t.equal((await taken).rows, 0, 'characters in a string are no values');
});

t.test('the count of values agrees with the parser', async (t) => {
  /** Every value but the outermost, and one more for each empty array and object. */
  const countOf = (value: unknown): number => {
    if (typeof value !== 'object' || value === null) return 0;
    const inside = Object.values(value);
    return inside.reduce<number>((sum, one) => sum + 1 + countOf(one), inside.length === 0 ? 1 : 0);
  };
  const isFew = (bytes: Buffer, valuesMax: number): boolean => {
    try {
      requireFewValues(bytes, valuesMax);
      return true;
    } catch (thrown) {
      if (thrown instanceof CoreError && thrown.code === 'VALIDATION_FAILED') return false;
      throw thrown;
    }
  };
  const property = fc.property(fc.jsonValue(), (value) => {
    const count = countOf(value);
    return isFew(body(value), count) && !isFew(body(value), count - 1);
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }));
});

t.test('nodes take turns', async (t) => {
  const bodies = largeBodies(t);
  const order: string[] = [];
  const send = async (name: string, nodeId: number) => {
    await bodies.pack({ kind: 'session', nodeId, body: body({ events: list(800, sessionEvent) }) });
    order.push(name);
  };
  const greedy = list(6, (index) => send(`greedy ${index}`, 1));
  await Promise.all([...greedy, send('modest', 2)]);
  t.ok(order.indexOf('modest') <= 2, order.join(', '));
});

t.test('what waits has a bound for a node and for all', async (t) => {
  const bodies = largeBodies(t);
  const large = body({ entries: [], more: 'x'.repeat(4_000_000) });
  const send = (nodeId: number) => codeOf(bodies.pack({ kind: 'usage', nodeId, body: large }));
  // The thread has the first one; two wait.
  const own = list(4, () => send(1));
  const others = list(40, (index) => send(index + 2));
  t.same(await Promise.all(own), [undefined, undefined, undefined, 'BACKLOG_FULL']);
  const refused = (await Promise.all(others)).filter((code) => code !== undefined);
  // 67,108,864 bytes hold 16 of these, and node 1 has two of them.
  t.same(refused, Array(26).fill('BACKLOG_FULL'));
  t.equal(await send(1), undefined, 'the node may send again when they are done');
});

t.test('a thread that ends fails the body that it had, and no other', async (t) => {
  const small = { kind: 'usage', nodeId, body: body({ entries: [] }) } as const;
  const missing = largeBodies(t, path.join(import.meta.dirname, 'no-such-file.js'));
  t.match(await outcome(() => missing.pack(small)), {
    code: 'INTERNAL',
    status: 500,
    message: 'The thread for large bodies ended',
  });
  t.equal(await codeOf(missing.pack(small)), 'INTERNAL', 'the next body starts the thread again');
});

t.test('close answers what waits', async (t) => {
  const bodies = createLargeBodies(options);
  const large = {
    kind: 'session',
    nodeId,
    body: body({ events: list(800, sessionEvent) }),
  } as const;
  const waiting = [bodies.pack(large), bodies.pack(large)].map(codeOf);
  await bodies.close();
  t.same(await Promise.all(waiting), ['SHUTTING_DOWN', 'SHUTTING_DOWN']);
  t.equal(await codeOf(bodies.pack(large)), 'SHUTTING_DOWN');
});

t.test('large posts are stored and refused like small ones', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const events = list(2_000, sessionEvent);
  t.ok(body({ events }).length > smallBodyBytesMax);
  const headers = { 'idempotency-key': 'large' };
  for (const repeat of [1, 2]) {
    const reply = await post(api, '/node/session-events', { events }, { node, headers });
    t.equal(reply.status, 200, `sent ${repeat} times`);
  }
  const stream = `${api.config.stores.redisPrefix}:{s0}:session`;
  t.equal(await api.redis.get(`${stream}:rows`), '2000', 'the repeat stored nothing');
  const other = { events: events.slice(1) };
  t.equal((await post(api, '/node/session-events', other, { node, headers })).status, 422);
  const bad = { events: [...events, {}] };
  const refused = await post(api, '/node/session-events', bad, { node });
  t.equal(refused.status, 400);
  t.equal(refused.json.error?.issues?.[0]?.path, 'events[2000].userId');
});
