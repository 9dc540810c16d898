import fc from 'fast-check';
import t from 'tap';
import { packUsage, usageRow } from '../src/ingest/pack.ts';
import { sortUsageRows } from '../src/load/sort-rows.ts';

interface Key {
  subscriptionId: number | null;
  /** Seconds since 1970. */
  seconds: number;
}

/** Each row's user is its place, so that rows of one key can be told apart. */
function pack(keys: readonly Key[]): Buffer {
  return packUsage(
    7,
    keys.map(({ subscriptionId, seconds }, place) => ({
      userId: place,
      ...(subscriptionId === null ? {} : { subscriptionId }),
      nodeProtocolId: 1,
      bytesUp: place * 3,
      bytesDown: place * 5,
      recordedAt: seconds * 1_000,
    })),
  );
}

function placesOf(rows: Buffer): number[] {
  return Array.from({ length: rows.length / usageRow.length }, (_, row) =>
    Number(rows.readBigUInt64LE(row * usageRow.length + usageRow.userId)),
  );
}

/** What Array's own stable sort makes of the keys, as places. */
function expectedPlaces(keys: readonly Key[]): number[] {
  const idOf = (place: number): number => keys[place]?.subscriptionId ?? 0;
  const secondsOf = (place: number): number => keys[place]?.seconds ?? 0;
  return Array.from(keys.keys()).sort(
    (a, b) => idOf(a) - idOf(b) || secondsOf(a) - secondsOf(b) || a - b,
  );
}

const ids = fc.oneof(
  fc.constant(null),
  fc.integer({ min: 1, max: 50 }),
  fc.integer({ min: 1_000_000, max: 1_200_000 }),
  // With times of many years their product is no longer exact, though each has 32 bits.
  fc.integer({ min: 1, max: 4_000_000_000 }),
  fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
);
const seconds = fc.oneof(
  fc.integer({ min: 1_764_000_000, max: 1_764_000_010 }),
  fc.integer({ min: 0, max: 4_294_967_295 }),
);
const anyKeys = fc.array(fc.record({ subscriptionId: ids, seconds }), { maxLength: 300 });

/** Memory larger than asked for, and not clean. */
const allocate = (bytes: number): Buffer => Buffer.alloc(bytes + 64, 0xaa);

t.test('rows come in the order of the table, equal ones in the order they had', async () => {
  fc.assert(
    fc.property(anyKeys, fc.integer({ min: 0, max: 3 }), (keys, offset) => {
      const rows = pack(keys);
      // A segment may begin anywhere in memory.
      const placed = Buffer.concat([Buffer.alloc(offset), rows]).subarray(offset);
      const before = Buffer.from(placed);
      const sorted = sortUsageRows(placed, allocate);
      const places = expectedPlaces(keys);
      t.strictSame(placesOf(sorted), places);
      const whole = places.map((place) =>
        rows.subarray(place * usageRow.length, (place + 1) * usageRow.length),
      );
      t.ok(sorted.equals(Buffer.concat(whole)), 'rows are moved whole');
      t.ok(placed.equals(before), 'what was given is as it was');
    }),
    { numRuns: 500 },
  );
});

t.test('rows in order are returned as given', async () => {
  const rows = pack([
    { subscriptionId: null, seconds: 9 },
    { subscriptionId: 4, seconds: 5 },
    { subscriptionId: 4, seconds: 5 },
    { subscriptionId: 5, seconds: 1 },
  ]);
  t.equal(sortUsageRows(rows, allocate), rows);
  const none = Buffer.alloc(0);
  t.equal(sortUsageRows(none, allocate), none);
});

t.test('ids and times that each have 32 bits, and together more than a number holds', async (t) => {
  const keys = [
    { subscriptionId: 4_000_000_000, seconds: 4_000_000_000 },
    { subscriptionId: 1, seconds: 4_000_000_000 },
    { subscriptionId: 4_000_000_000, seconds: 0 },
    { subscriptionId: 1, seconds: 0 },
  ];
  t.strictSame(placesOf(sortUsageRows(pack(keys), allocate)), [3, 1, 2, 0]);
});
