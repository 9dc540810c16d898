import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { createDecodeMemory, decodeBody } from '../../src/accept/decode.ts';
import { sessionEventTypes, vpnProtocols } from '../../src/contract/enums.ts';
import { limits } from '../../src/contract/limits.ts';
import {
  ingestSchemas,
  nodeConfigAppliedSchema,
  nodeErrorSchema,
  nodeHeartbeatSchema,
  registerNodeSchema,
} from '../../src/contract/node.ts';
import { CoreError } from '../../src/errors.ts';
import {
  outboundRow,
  outboundRowLength,
  packOutbounds,
  packSessions,
  packUsage,
  sessionRow,
  sessionRowLength,
  usageRow,
} from '../../src/rows/pack.ts';

const nowMs = Date.parse('2026-11-25T00:00:00Z');
const schemas = ingestSchemas({ entriesMax: 50, nowMs: () => nowMs });
const everySchema = {
  usage: schemas.usage,
  outbound: schemas.outbound,
  session: schemas.session,
  register: registerNodeSchema,
  heartbeat: nodeHeartbeatSchema,
  applied: nodeConfigAppliedSchema,
  error: nodeErrorSchema,
};

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const body = (text: string): Buffer => Buffer.from(text);

type AnySchema = (typeof everySchema)[keyof typeof everySchema];

/** The error that refuses a body. Any other error than a CoreError fails the test. */
function thrownBy(schema: AnySchema, bytes: Buffer): CoreError | undefined {
  try {
    decodeBody(schema, bytes);
    return undefined;
  } catch (thrown) {
    if (thrown instanceof CoreError) return thrown;
    throw thrown;
  }
}

function refusal(schema: AnySchema, bytes: Buffer) {
  const refused = thrownBy(schema, bytes);
  if (refused === undefined) return undefined;
  return { code: refused.code, paths: refused.issues?.map((issue) => issue.path) ?? [] };
}

const id = fc.oneof(
  fc.integer({ min: 1, max: 1_000 }),
  fc.maxSafeNat().map((n) => n || 1),
);
const bytes = fc.oneof(fc.constant(Number.MAX_SAFE_INTEGER), fc.maxSafeNat());
const text = (charsMax: number) =>
  fc
    .oneof(
      fc.string({ maxLength: charsMax, unit: 'binary' }),
      fc.constant('\ud800'.repeat(charsMax)),
      fc.constant('é'.repeat(charsMax)),
    )
    .map((given) => given.replaceAll('\u0000', '.').slice(0, charsMax));

/** A time, and one of the ways to write it. */
const moment = fc
  .record({
    atMs: fc.integer({ min: limits.earliestMs, max: nowMs + limits.aheadMsMax }),
    offsetMinutes: fc.integer({ min: -1_439, max: 1_439 }),
    writes: fc.constantFrom('Z', 'offset', 'micros'),
  })
  .map(({ atMs, offsetMinutes, writes }) => {
    const iso = new Date(atMs).toISOString();
    if (writes === 'Z') return { atMs, written: iso };
    if (writes === 'micros') return { atMs, written: iso.replace('Z', '999Z') };
    const local = new Date(atMs + offsetMinutes * 60_000).toISOString().slice(0, -1);
    const of = Math.abs(offsetMinutes);
    const two = (n: number) => String(n).padStart(2, '0');
    const sign = offsetMinutes < 0 ? '-' : '+';
    return { atMs, written: `${local}${sign}${two(Math.floor(of / 60))}:${two(of % 60)}` };
  });

/** A name of an enum, and the same name with letters of either case. */
const inAnyCase = <T extends string>(names: readonly T[]) =>
  fc
    .tuple(fc.constantFrom(...names), fc.array(fc.boolean(), { minLength: 12, maxLength: 12 }))
    .map(([name, lowers]) => ({
      name,
      written: [...name].map((char, at) => (lowers[at] ? char.toLowerCase() : char)).join(''),
    }));

const usage = fc.record({
  userId: id,
  subscriptionId: fc.option(id),
  hasSubscription: fc.boolean(),
  nodeProtocolId: id,
  bytesUp: bytes,
  bytesDown: bytes,
  recordedAt: moment,
});

t.test('packed usage rows hold what the node sent', async (t) => {
  const property = fc.property(fc.array(usage, { maxLength: 50 }), (entries) => {
    const sent = entries.map(({ hasSubscription, subscriptionId, recordedAt, ...rest }) => ({
      ...rest,
      ...(hasSubscription ? { subscriptionId } : {}),
      recordedAt: recordedAt.written,
      unknown: { __proto__: null, deep: [[]] },
    }));
    const taken = decodeBody(schemas.usage, json({ entries: sent, more: 1 }));
    const block = packUsage(7, taken.entries);
    if (block.length !== entries.length * usageRow.length) return false;
    return entries.every((entry, index) => {
      const row = block.subarray(index * usageRow.length);
      const subscription = entry.hasSubscription ? (entry.subscriptionId ?? 0) : 0;
      return (
        row.readUInt32LE(usageRow.nodeId) === 7 &&
        row.readBigUInt64LE(usageRow.userId) === BigInt(entry.userId) &&
        row.readBigUInt64LE(usageRow.subscriptionId) === BigInt(subscription) &&
        row.readBigUInt64LE(usageRow.nodeProtocolId) === BigInt(entry.nodeProtocolId) &&
        row.readBigUInt64LE(usageRow.bytesUp) === BigInt(entry.bytesUp) &&
        row.readBigUInt64LE(usageRow.bytesDown) === BigInt(entry.bytesDown) &&
        row.readUInt32LE(usageRow.recordedAt) === Math.floor(entry.recordedAt.atMs / 1_000) &&
        row.readBigUInt64LE(usageRow.segment) === 0n
      );
    });
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 300 }));
});

t.test('packed session rows hold what the node sent', async (t) => {
  const event = fc.record({
    userId: id,
    protocol: inAnyCase(vpnProtocols),
    eventType: inAnyCase(sessionEventTypes),
    occurredAt: moment,
    ipAddress: fc.option(text(limits.sessionIpCharsMax), { nil: undefined }),
  });
  const property = fc.property(fc.array(event, { maxLength: 50 }), (events) => {
    const sent = events.map((one) => ({
      ...one,
      protocol: one.protocol.written,
      eventType: one.eventType.written,
      occurredAt: one.occurredAt.written,
    }));
    const block = packSessions(7, decodeBody(schemas.session, json({ events: sent })).events);
    let at = 0;
    for (const one of events) {
      const row = block.subarray(at, at + sessionRowLength(block, at));
      const address = Buffer.from(one.ipAddress ?? '');
      const same =
        row.readBigUInt64LE(sessionRow.userId) === BigInt(one.userId) &&
        row.readInt8(sessionRow.protocol) === vpnProtocols.indexOf(one.protocol.name) + 1 &&
        row.readInt8(sessionRow.eventType) === sessionEventTypes.indexOf(one.eventType.name) + 1 &&
        row.readBigInt64LE(sessionRow.occurredAt) === BigInt(one.occurredAt.atMs) &&
        row.subarray(row.length - address.length).equals(address);
      if (!same) return false;
      at += row.length;
    }
    return at === block.length;
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 300 }));
});

t.test('packed outbound rows hold what the node sent', async (t) => {
  const tag = text(limits.outboundTagCharsMax).map((given) => given || 'direct');
  const item = fc.record({ tag, bytesUp: bytes, bytesDown: bytes });
  const property = fc.property(fc.array(item, { maxLength: 50 }), (items) => {
    const block = packOutbounds(7, decodeBody(schemas.outbound, json({ items })).items);
    let at = 0;
    for (const one of items) {
      const row = block.subarray(at, at + outboundRowLength(block, at));
      const same =
        row.readBigUInt64LE(outboundRow.bytesUp) === BigInt(one.bytesUp) &&
        row.readBigUInt64LE(outboundRow.bytesDown) === BigInt(one.bytesDown) &&
        row.subarray(outboundRow.tag + 2).equals(Buffer.from(one.tag));
      if (!same) return false;
      at += row.length;
    }
    return at === block.length;
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 300 }));
});

/** JSON that no number field takes. The fields do take `1.0`, `1e0` and `-0`. */
const notNumbers = [
  '"1"',
  'null',
  'true',
  '[]',
  '{}',
  '[1]',
  '1.5',
  '-1',
  '1e400',
  '-1e400',
  '9007199254740992',
  '9007199254740993',
  '18446744073709551616',
  '1e-1',
  '{"__proto__":1}',
];
const notTimes = [
  '1764028800000',
  'null',
  '""',
  '"2026-02-30T00:00:00Z"',
  '"2026-02-29T00:00:00Z"',
  '"2026-04-31T00:00:00Z"',
  '"2026-13-01T00:00:00Z"',
  '"2026-00-10T00:00:00Z"',
  '"2026-06-30T23:59:60Z"',
  '"2026-01-01T24:00:00Z"',
  '"2026-01-01T00:60:00Z"',
  '"2026-01-01T00:00:00"',
  '"2026-01-01"',
  '"2026-01-01 00:00:00Z"',
  '"2026-01-01T00:00:00+24:00"',
  '"2026-01-01T00:00:00+1:00"',
  '"2026-01-01T00:00:00+0100"',
  '"2026-01-01T00:00:00+01:60"',
  '"2026-01-01T00:00:00Z "',
  '"2026-01-01T00:00:00.Z"',
  '"+002026-01-01T00:00:00Z"',
  '"2019-12-31T23:59:59.999Z"',
  '"2026-11-26T00:00:00.001Z"',
  '"٢٠٢٦-01-01T00:00:00Z"',
];
const notNames = [
  '"PPTP"',
  '""',
  '1',
  'null',
  '["VLESS"]',
  '" VLESS"',
  '"VLE\u00df"',
  '"onl\u0131ne"',
  '"VLESS\\u0000"',
  '"\\ud800"',
  '"__proto__"',
];

const fields: { kind: 'usage' | 'session' | 'outbound'; field: string; wrong: string[] }[] = [
  { kind: 'usage', field: 'userId', wrong: [...notNumbers, '0', '-0'] },
  { kind: 'usage', field: 'nodeProtocolId', wrong: [...notNumbers, '0'] },
  {
    kind: 'usage',
    field: 'subscriptionId',
    wrong: [...notNumbers.filter((given) => given !== 'null'), '0'],
  },
  { kind: 'usage', field: 'bytesUp', wrong: notNumbers },
  { kind: 'usage', field: 'bytesDown', wrong: notNumbers },
  { kind: 'usage', field: 'recordedAt', wrong: notTimes },
  { kind: 'session', field: 'userId', wrong: [...notNumbers, '0'] },
  { kind: 'session', field: 'occurredAt', wrong: notTimes },
  { kind: 'session', field: 'protocol', wrong: notNames },
  { kind: 'session', field: 'eventType', wrong: notNames },
  {
    kind: 'session',
    field: 'ipAddress',
    wrong: ['null', '1', '"a\\u0000"', `"${'1'.repeat(65)}"`],
  },
  {
    kind: 'outbound',
    field: 'tag',
    wrong: ['null', '1', '""', '"\\u0000"', `"${'t'.repeat(256)}"`],
  },
  { kind: 'outbound', field: 'bytesUp', wrong: notNumbers },
];
const lists = { usage: 'entries', session: 'events', outbound: 'items' } as const;
const good = {
  usage: {
    userId: '1',
    nodeProtocolId: '2',
    bytesUp: '0',
    bytesDown: '1',
    recordedAt: '"2026-01-01T00:00:00Z"',
  },
  session: {
    userId: '1',
    protocol: '"VLESS"',
    eventType: '"ONLINE"',
    occurredAt: '"2026-01-01T00:00:00Z"',
  },
  outbound: { tag: '"direct"', bytesUp: '0', bytesDown: '1' },
} as const;
const written = (entry: Readonly<Record<string, string>>): string =>
  `{${Object.entries(entry)
    .map(([name, value]) => `"${name}":${value}`)
    .join(',')}}`;

t.test('one wrong field refuses the whole body and names its path', async (t) => {
  const fault = fc.constantFrom(...fields).chain(({ kind, field, wrong }) =>
    fc.record({
      kind: fc.constant(kind),
      field: fc.constant(field),
      value: fc.constantFrom(...wrong),
    }),
  );
  const property = fc.property(
    fault,
    fc.nat(20),
    fc.nat(20),
    ({ kind, field, value }, before, after) => {
      const fine = written(good[kind]);
      const entries = [
        ...Array(before).fill(fine),
        written({ ...good[kind], [field]: value }),
        ...Array(after).fill(fine),
      ];
      const refused = refusal(schemas[kind], body(`{"${lists[kind]}":[${entries.join(',')}]}`));
      const path = `${lists[kind]}[${before}].${field}`;
      return refused?.code === 'VALIDATION_FAILED' && refused.paths.every((one) => one === path);
    },
  );
  t.doesNotThrow(() => fc.assert(property, { numRuns: 1_000 }));
});

t.test(
  'a body with many faults lists the first 20, the same as for each entry alone',
  async (t) => {
    const kindsOf = fc.constantFrom('usage', 'session', 'outbound' as const);
    const property = fc.property(kindsOf, fc.array(fc.nat(), { maxLength: 50 }), (kind, picks) => {
      const faults = fields.filter((field) => field.kind === kind);
      const entries = picks.map((pick) => {
        const { field, wrong } = faults[pick % faults.length] ?? assert.fail();
        const value = wrong[pick % wrong.length] ?? '';
        return [written(good[kind]), '{}', written({ ...good[kind], [field]: value })][pick % 3];
      });
      const issuesOf = (listed: readonly unknown[]) => {
        const refused = thrownBy(schemas[kind], body(`{"${lists[kind]}":[${listed.join(',')}]}`));
        return refused?.issues ?? [];
      };
      const alone = entries.flatMap((entry, index) =>
        issuesOf([entry]).map(({ path, message }) => ({
          path: path.replace('[0]', `[${index}]`),
          message,
        })),
      );
      t.same(issuesOf(entries), alone.slice(0, limits.issuesMax));
    });
    fc.assert(property, { numRuns: 300 });
  },
);

t.test('the check stops at 20 faults', async (t) => {
  const wide = ingestSchemas({ entriesMax: 100_000, nowMs: () => nowMs });
  let reads = 0;
  const watched = {
    get userId() {
      reads += 1;
      return 0;
    },
  };
  const refused = wide.usage.safeParse({ entries: Array.from({ length: 100_000 }, () => watched) });
  t.notOk(refused.success);
  t.ok(reads > 0 && reads < 1_000, `${reads} of 100,000 entries were read`);
  const long = wide.usage.safeParse({ entries: Array.from({ length: 100_001 }, () => watched) });
  t.same(
    long.error?.issues.map(({ message }) => message),
    ['Too big: expected array to have <=100000 items'],
  );
  t.ok(reads < 1_000, 'no entry of a list that is too long is read');
  const text = thrownBy(schemas.usage, body(`{"entries":[${'{},'.repeat(49)}{}]}`))?.message;
  t.match(text, /stopped at this many faults/);
});

t.test('every wrong value of every field, and every missing field', async (t) => {
  for (const { kind, field, wrong } of fields) {
    for (const value of wrong) {
      const one = written({ ...good[kind], [field]: value });
      const refused = refusal(schemas[kind], body(`{"${lists[kind]}":[${one}]}`));
      t.same(
        refused,
        { code: 'VALIDATION_FAILED', paths: [`${lists[kind]}[0].${field}`] },
        value.slice(0, 40),
      );
    }
  }
  for (const kind of ['usage', 'session', 'outbound'] as const) {
    for (const field of Object.keys(good[kind])) {
      const { [field]: _, ...others } = good[kind] as Record<string, string>;
      const refused = refusal(schemas[kind], body(`{"${lists[kind]}":[${written(others)}]}`));
      t.same(refused?.paths, [`${lists[kind]}[0].${field}`], `without ${field}`);
    }
  }
});

t.test('unusual numbers and times that are valid', async (t) => {
  const { entries } = decodeBody(
    schemas.usage,
    body(
      `{"entries":[${written({ ...good.usage, userId: '1.0', nodeProtocolId: '20e-1', bytesUp: '-0', bytesDown: '9007199254740991', recordedAt: '"2024-02-29T23:59:59.123456789-00:00"' })}]}`,
    ),
  );
  const row = packUsage(1, entries);
  t.equal(row.readBigUInt64LE(usageRow.userId), 1n);
  t.equal(row.readBigUInt64LE(usageRow.nodeProtocolId), 2n);
  t.equal(row.readBigUInt64LE(usageRow.bytesUp), 0n);
  t.equal(row.readBigUInt64LE(usageRow.bytesDown), 2n ** 53n - 1n);
  t.equal(row.readUInt32LE(usageRow.recordedAt), Date.parse('2024-02-29T23:59:59Z') / 1_000);
});

t.test('the last one of two equal keys counts, valid or not', async (t) => {
  const twice = (first: string, last: string) =>
    body(
      `{"entries":[${written(good.usage).replace('"bytesUp":0', `"bytesUp":${first},"bytesUp":${last}`)}]}`,
    );
  t.equal(decodeBody(schemas.usage, twice('"no"', '5')).entries[0]?.bytesUp, 5);
  t.same(refusal(schemas.usage, twice('5', '"no"'))?.paths, ['entries[0].bytesUp']);
});

t.test('keys of the prototype are unknown fields like any other', async (t) => {
  const hostile =
    '"__proto__":{"polluted":1,"userId":1},"constructor":{"prototype":{"polluted":1}}';
  const inside = body(`{${hostile},"entries":[{${hostile},${written(good.usage).slice(1)}]}`);
  t.equal(decodeBody(schemas.usage, inside).entries.length, 1);
  const inherited = body(`{"entries":[{"__proto__":${written(good.usage)}}]}`);
  t.equal(
    refusal(schemas.usage, inherited)?.code,
    'VALIDATION_FAILED',
    'an entry inherits nothing',
  );
  const details = decodeBody(
    nodeErrorSchema,
    body(`{"message":"x","details":{${hostile}}}`),
  ).details;
  t.equal(Object.getPrototypeOf(details), Object.prototype);
});

t.test('nesting of any depth is refused or ignored and never crashes', async (t) => {
  for (const levels of [10, 1_000, 10_000, 200_000]) {
    const arrays = '['.repeat(levels) + ']'.repeat(levels);
    const objects = `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;
    for (const schema of Object.values(everySchema)) {
      t.equal(refusal(schema, body(arrays))?.code, 'VALIDATION_FAILED');
      t.equal(refusal(schema, body('['.repeat(levels)))?.code, 'MALFORMED_JSON');
    }
    t.equal(refusal(schemas.usage, body(`{"entries":[],"more":${objects}}`)), undefined);
    t.equal(refusal(schemas.usage, body(`{"entries":[${objects}]}`))?.code, 'VALIDATION_FAILED');
    const details = body(`{"message":"x","details":{"a":${objects}}}`);
    t.equal(refusal(nodeErrorSchema, details), undefined, 'Core cuts it when it stores it');
  }
});

t.test('any JSON and any bytes give a value or a CoreError', async (t) => {
  const anySchema = fc.constantFrom(...Object.values(everySchema));
  const anyBody = fc.oneof(
    fc.json({ maxDepth: 6 }).map(body),
    fc.jsonValue().map((value) => json({ entries: [value], items: [value], events: value })),
    fc.uint8Array({ maxLength: 200 }).map((given) => Buffer.from(given)),
    fc.tuple(fc.nat(400), fc.nat(255)).map(([at, byte]) => {
      const damaged = body(`{"entries":[${written(good.usage)},${written(good.usage)}]}`);
      damaged[at % damaged.length] = byte;
      return damaged;
    }),
    fc.nat(150).map((end) => body(`{"entries":[${written(good.usage)}]}`).subarray(0, end)),
  );
  const property = fc.property(anySchema, anyBody, (schema, given) => {
    const refused = refusal(schema, given);
    if (refused === undefined) return true;
    if (refused.code === 'MALFORMED_JSON') return refused.paths.length === 0;
    return refused.code === 'VALIDATION_FAILED' && refused.paths.length > 0;
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 2_000 }));
});

t.test('a body that is not JSON or not UTF-8', async (t) => {
  const broken = [
    '',
    ' ',
    '{',
    '{"entries":[NaN]}',
    '{"entries":[Infinity]}',
    "{'entries':[]}",
    '{"entries":[],}',
    '{"entries":[01]}',
    '{"entries":["\u0001"]}',
    '{"entries":[]}x',
    '{"entries":["\\ud8"]}',
    '// x\n{}',
    'undefined',
  ];
  for (const given of broken) {
    t.equal(refusal(schemas.usage, body(given))?.code, 'MALFORMED_JSON', given);
  }
  for (const given of [
    [0x22, 0xff, 0x22],
    [0x22, 0xed, 0xa0, 0x80, 0x22],
    [0x22, 0xc0, 0x80, 0x22],
    [0xff, 0xfe],
  ]) {
    t.equal(refusal(schemas.usage, Buffer.from(given))?.code, 'MALFORMED_JSON');
  }
});

t.test('each of two bodies with the same hash gives its own value', async (t) => {
  const decode = createDecodeMemory(nodeHeartbeatSchema, { bodiesMax: 10, bytesMax: 64 });
  const [one, other] = [Buffer.from('{"revision":112789}'), Buffer.from('{"revision":349192}')];
  const first = decode(one);
  t.equal(decode(one), first, 'from memory');
  t.same(decode(other), { revision: 349_192 });
  t.same(decode(one), { revision: 112_789 });
  t.not(decode(one), first, 'the other body took its place, so both have the same hash');
});

t.test('no test above has changed Object.prototype', async (t) => {
  t.same(Object.keys(Object.prototype), []);
  t.equal(({} as Record<string, unknown>)['polluted'], undefined);
});

t.test('a remembered body gives what decodeBody gives', async (t) => {
  const decode = createDecodeMemory(nodeHeartbeatSchema, { bodiesMax: 3, bytesMax: 64 });
  const outcome = (work: () => unknown): unknown => {
    try {
      return work();
    } catch (error) {
      t.ok(error instanceof CoreError);
      return (error as CoreError).code;
    }
  };
  const revision = fc.oneof(fc.integer({ min: -1, max: 2 }), fc.constantFrom('1', null, 1.5));
  const dto = fc.record(
    { ip: fc.string({ unit: 'binary', maxLength: 30 }), revision },
    {
      requiredKeys: [],
    },
  );
  const body = fc.oneof(
    dto.map((value) => Buffer.from(JSON.stringify(value))),
    fc.uint8Array({ maxLength: 4 }).map((bytes) => Buffer.from(bytes)),
    // Two bodies that differ only in a byte that is not UTF-8: as text they would be equal.
    fc.constantFrom('ff', 'fe').map((bad) => Buffer.from(`7b226970223a22${bad}227d`, 'hex')),
  );
  fc.assert(
    fc.property(fc.array(body, { minLength: 1, maxLength: 12 }), (bodies) => {
      for (const one of [...bodies, ...bodies]) {
        t.same(
          outcome(() => decode(one)),
          outcome(() => decodeBody(nodeHeartbeatSchema, one)),
        );
      }
    }),
    { numRuns: 200 },
  );
  const again = Buffer.from('{"revision":7}');
  t.equal(decode(again), decode(Buffer.from(again)), 'from memory');
  const long = Buffer.from(`{"revision":7${' '.repeat(64)}}`);
  t.not(decode(long), decode(long), 'too long to be remembered');
  for (const number of [1, 2, 3]) decode(Buffer.from(`{"revision":10${number}}`));
  const first = decode(again);
  t.same(first, { revision: 7 }, 'it is decoded again after the memory was cleared');
  t.ok(Object.isFrozen(first));
});
