import fc from 'fast-check';
import t from 'tap';
import { decodeBody } from '../../src/accept/decode.ts';
import { ingestSchemas } from '../../src/contract/node.ts';
import { packUsage } from '../../src/rows/pack.ts';
import { expandUsage } from '../../src/rows/usage-rows.ts';
import { type ScannedUsage, scanUsage } from '../../src/rows/wasm.ts';
import { copyOf } from '../support/copy-of.ts';

const nowAtMs = Date.parse('2026-11-24T12:00:00Z');
const options = { entriesMax: 20, nowMs: () => nowAtMs };
const schemas = ingestSchemas(options);
const nodeId = 4_000_000_000;
/** A million in the long run: CORE_SCAN_RUNS=1000000 npm test -- test/rows/usage-scanner.test.ts */
const runs = Number(process.env['CORE_SCAN_RUNS'] ?? 20_000);

/** The rows that zod and packUsage give; undefined if they refuse the body. */
function byContract(body: Uint8Array): Buffer | undefined {
  try {
    const { entries } = decodeBody(schemas.usage, body);
    return packUsage(nodeId, entries);
  } catch {
    return undefined;
  }
}

function scan(body: Uint8Array): ScannedUsage | undefined {
  return scanUsage(nodeId, body, { ...options, nowMs: nowAtMs });
}

/** Throws if the scanner takes a body that the contract refuses, or gives other rows for it. */
function agree(body: Uint8Array): 'taken' | 'unsure' {
  const scanned = scan(body);
  if (scanned === undefined) return 'unsure';
  const expected = byContract(body);
  if (expected === undefined) throw new Error('the scanner takes what the contract refuses');
  const packed = expandUsage(copyOf(scanned.bytes), scanned.rows);
  if (packed?.equals(expected) !== true) throw new Error('other rows than the contract');
  return 'taken';
}

const pad = (value: number, width = 2): string => String(value).padStart(width, '0');
const integerText = fc.oneof(
  { weight: 8, arbitrary: fc.maxSafeNat().map(String) },
  { weight: 4, arbitrary: fc.nat(100).map(String) },
  {
    // Numbers of every length, because the scanner reads eight digits at once.
    weight: 8,
    arbitrary: fc
      .tuple(fc.integer({ min: 1, max: 18 }), fc.bigInt({ min: 0n, max: 10n ** 18n - 1n }))
      .map(([digits, value]) => String(value % 10n ** BigInt(digits))),
  },
  fc.constantFrom('0', '-0', '-1', '1.0', '1e3', '01', '9007199254740991', '9007199254740992'),
  fc.constantFrom('18446744073709551616', '1e400', 'null', '"1"', 'true', '1.5', '', '00'),
);
const dateText = fc
  .record({
    year: fc.oneof(fc.integer({ min: 2020, max: 2026 }), fc.integer({ min: 0, max: 9999 })),
    month: fc.integer({ min: 0, max: 13 }),
    day: fc.integer({ min: 0, max: 32 }),
    hour: fc.integer({ min: 0, max: 25 }),
    minute: fc.integer({ min: 0, max: 61 }),
    second: fc.integer({ min: 0, max: 61 }),
    fraction: fc.constantFrom('', '.0', '.12', '.999', '.1234', '.', '.123456789'),
    zone: fc.constantFrom(
      'Z',
      '+02:00',
      '-11:30',
      '+23:59',
      '-00:00',
      '+24:00',
      'z',
      '',
      '+0200',
      '+02',
    ),
  })
  .map(
    (d) =>
      `"${pad(d.year, 4)}-${pad(d.month)}-${pad(d.day)}T${pad(d.hour)}:${pad(d.minute)}:${pad(d.second)}${d.fraction}${d.zone}"`,
  );
const usualDate = fc
  .integer({ min: 1_577_836_700_000, max: nowAtMs + 86_500_000 })
  .map((ms) => JSON.stringify(new Date(ms).toISOString()));
/** The scanner remembers the last time it read. */
const sameDate = fc.constantFrom(
  ...['"2026-11-24T11:00:00.000Z"', '"2026-11-24T11:00:00.000Z"', '"2026-11-24T11:00:00.000Z'],
  ...['"2026-11-24T11:00:00.000Zz"', ' 2026-11-24T11:00:00.000Z"', '"2026-11-24T11:00:00.001Z"'],
);
const timeText = fc.oneof({ weight: 3, arbitrary: usualDate }, sameDate, dateText);
const space = fc.constantFrom('', '', '', ' ', '\n', '\t\r ', '\u00a0');

const member = fc.oneof(
  {
    weight: 30,
    arbitrary: fc.tuple(fc.constantFrom('userId', 'nodeProtocolId', 'subscriptionId'), integerText),
  },
  { weight: 20, arbitrary: fc.tuple(fc.constantFrom('bytesUp', 'bytesDown'), integerText) },
  { weight: 10, arbitrary: fc.tuple(fc.constant('recordedAt'), timeText) },
  fc.tuple(fc.constantFrom('userid', 'userId\\u0041', '__proto__', 'extra', 'bytesUp '), fc.json()),
);
const wholeEntry = fc
  .record(
    {
      userId: fc.maxSafeNat().map((n) => String(n + 1)),
      nodeProtocolId: fc.nat().map((n) => String(n + 1)),
      subscriptionId: fc.constantFrom('null', '7', '9007199254740991'),
      bytesUp: fc.maxSafeNat().map(String),
      bytesDown: fc.maxSafeNat().map(String),
      recordedAt: timeText,
    },
    { requiredKeys: ['userId', 'nodeProtocolId', 'bytesUp', 'bytesDown', 'recordedAt'] },
  )
  .chain((fields) =>
    fc.shuffledSubarray(Object.entries(fields), { minLength: Object.keys(fields).length }),
  );
const entryText = fc
  .tuple(
    fc.oneof({ weight: 4, arbitrary: wholeEntry }, fc.array(member, { maxLength: 8 })),
    space,
    space,
  )
  .map(
    ([members, a, b]) =>
      `{${a}${members.map(([name, value]) => `"${name}"${b}:${a}${value}${b}`).join(`,${a}`)}}`,
  );
const bodyText = fc
  .tuple(fc.array(entryText, { maxLength: 22 }), space, fc.constantFrom('', '', '', 'x', '{}', ','))
  .map(
    ([entries, a, tail]) =>
      `${a}{${a}"entries"${a}:${a}[${entries.join(`${a},`)}${a}]${a}}${a}${tail}`,
  );

t.test('the contract takes every body that the scanner takes, with the same rows', async (t) => {
  const counts = { taken: 0, unsure: 0 };
  fc.assert(
    fc.property(bodyText, (text) => {
      counts[agree(Buffer.from(text))] += 1;
    }),
    { numRuns: runs },
  );
  t.comment(JSON.stringify(counts));
  t.ok(counts.taken > runs / 100, 'there were valid bodies');
  t.ok(counts.unsure > runs / 100, 'there were others');
});

t.test('the scanner gives no wrong rows for a damaged body', async (t) => {
  const damage = fc.array(
    fc.record({
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      kind: fc.constantFrom('flip', 'drop', 'repeat', 'insert'),
      byte: fc.nat(255),
    }),
    { minLength: 1, maxLength: 3 },
  );
  const counts = { taken: 0, unsure: 0 };
  fc.assert(
    fc.property(fc.array(wholeEntry, { minLength: 1, maxLength: 4 }), damage, (entries, faults) => {
      const text = `{"entries":[${entries.map((members) => `{${members.map(([n, v]) => `"${n}":${v}`).join(',')}}`).join(',')}]}`;
      let bytes = [...Buffer.from(text)];
      for (const fault of faults) {
        const at = Math.floor(fault.at * (bytes.length - 1));
        const before = bytes.slice(0, at);
        const after = bytes.slice(at + 1);
        const here = bytes[at] ?? 0;
        if (fault.kind === 'flip') bytes = [...before, here ^ (1 << (fault.byte % 8)), ...after];
        else if (fault.kind === 'drop') bytes = [...before, ...after];
        else if (fault.kind === 'repeat') bytes = [...before, here, here, ...after];
        else bytes = [...before, fault.byte, here, ...after];
      }
      counts[agree(Uint8Array.from(bytes))] += 1;
    }),
    { numRuns: runs },
  );
  t.ok(counts.unsure > 0);
});

t.test('the scanner takes the usual bodies', async (t) => {
  const entry = {
    userId: 1,
    subscriptionId: 2,
    nodeProtocolId: 3,
    bytesUp: 4,
    bytesDown: 5,
    recordedAt: '2026-11-24T10:00:00Z',
  };
  const { subscriptionId: _, ...without } = entry;
  for (const entries of [
    [],
    [entry],
    [without],
    [{ ...entry, subscriptionId: null }],
    Array(20).fill(entry),
  ]) {
    t.equal(agree(Buffer.from(JSON.stringify({ entries }))), 'taken');
    t.equal(agree(Buffer.from(JSON.stringify({ entries }, null, 2))), 'taken');
  }
  t.equal(agree(Buffer.from(JSON.stringify({ entries: Array(21).fill(entry) }))), 'unsure');
  t.equal(agree(Buffer.from('')), 'unsure');
  t.equal(agree(Buffer.from('{"entries":[]')), 'unsure');
});

t.test('bodies of any size fit', async (t) => {
  const bounds = { entriesMax: 100_000, nowMs: nowAtMs };
  const entry = {
    userId: 1,
    nodeProtocolId: 3,
    bytesUp: 4,
    bytesDown: 5,
    recordedAt: '2026-11-24T10:00:00Z',
  };
  for (const count of [1, 100_000, 10]) {
    const body = Buffer.from(JSON.stringify({ entries: Array(count).fill(entry) }));
    const scanned = scanUsage(7, body, bounds);
    t.equal(scanned?.rows, count);
    t.equal(scanned && expandUsage(copyOf(scanned.bytes), count)?.length, count * 56);
  }
});
