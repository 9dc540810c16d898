import fc from 'fast-check';
import t from 'tap';
import { compactBlocks } from '../../src/rows/compact.ts';
import { packUsage, usageColumns, usageRow } from '../../src/rows/pack.ts';
import type { SegmentRows } from '../../src/rows/segment-rows.ts';
import { decodeRow } from '../../src/rows/single-rows.ts';
import { openUsageRows } from '../../src/rows/usage-rows.ts';
import {
  packValues,
  payloadOf,
  readNative,
  type UsageValues,
  valueNames,
} from '../support/native.ts';

const segmentId = 1_795_000_000_123;
const none: ReadonlySet<number> = new Set();
const uint32 = fc.bigInt({ min: 0n, max: 2n ** 32n - 1n });
const uint64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const few = fc.bigInt({ min: 0n, max: 5n });
/** One kind of number for each column, so that there are columns of 32 bits and of 64 bits. */
const kindOfId = fc.constantFrom(
  fc.oneof(few, uint64),
  uint32,
  few,
  fc.bigInt({ min: 2n ** 40n, max: 2n ** 40n + 9n }),
  fc.bigInt({ min: 0n, max: 2n ** 33n }),
);
const minutes = fc.bigInt({ min: 1_795_000_000n, max: 1_795_000_090n });
const kindOfTime = fc.constantFrom(minutes, minutes, uint32);
/** Rows of any nodes. Some have the same sort key. */
const anyRows = fc
  .tuple(kindOfId, kindOfId, kindOfId, kindOfTime)
  .chain(([ids, others, bytes, times]) =>
    fc.array(
      fc.record({
        nodeId: fc.oneof(few, uint32),
        nodeProtocolId: others,
        userId: others,
        subscriptionId: ids,
        bytesUp: bytes,
        bytesDown: fc.oneof(few, bytes),
        recordedAt: times,
      }),
      { minLength: 1, maxLength: 200 },
    ),
  );

/** Gives more memory than asked for, and not zeroed. */
const allocate = (bytes: number): Buffer => Buffer.alloc(bytes + 64, 0xaa);

function open(rows: readonly UsageValues[]): SegmentRows {
  return openUsageRows(
    { blocks: compactBlocks(packValues(rows)), rows: rows.length, segmentId },
    allocate,
  );
}

function inTableOrder(rows: readonly UsageValues[]): UsageValues[] {
  const compare = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0);
  return [...rows].sort(
    (a, b) => compare(a.subscriptionId, b.subscriptionId) || compare(a.recordedAt, b.recordedAt),
  );
}

function yyyymmOf(row: UsageValues): number {
  const date = new Date(Number(row.recordedAt) * 1_000);
  return date.getUTCFullYear() * 100 + date.getUTCMonth() + 1;
}

/** The columns that these rows must be sent as. */
function columnsOf(rows: readonly UsageValues[]): Record<string, bigint[]> {
  const columns = Object.fromEntries(
    valueNames.map((name, index) => [usageColumns[index], rows.map((row) => row[name])]),
  );
  return { ...columns, segment: rows.map(() => BigInt(segmentId)) };
}

t.test(
  'a month is sent in the order of the table; rows with equal keys keep the order of the stream',
  async (t) => {
    let wide = 0;
    fc.assert(
      fc.property(anyRows, fc.nat(), (rows, seed) => {
        const opened = open(rows);
        const months = groupBy(rows, yyyymmOf);
        t.same(
          opened.months.map(({ yyyymm, rows: count }) => [yyyymm, count]),
          [...months]
            .map(([yyyymm, some]) => [yyyymm, some.length])
            .sort(([a = 0], [b = 0]) => a - b),
        );
        for (const month of opened.months) {
          const all = months.get(month.yyyymm) ?? [];
          const rejected = new Set([seed % all.length, (seed >>> 8) % all.length]);
          for (const left of [none, rejected]) {
            const kept = all.filter((_, position) => !left.has(position));
            const payload = opened.payload(month, left);
            const block = readNative(payload.bytes);
            t.equal(payload.rows, kept.length);
            t.strictSame(block.columns, columnsOf(inTableOrder(kept)));
            t.same(Object.keys(block.types), usageColumns);
            for (const name of ['user_id', 'subscription_id', 'bytes_up', 'bytes_down']) {
              const needs64 = rows.some((row) => row[keyOf(name)] >= 2n ** 32n);
              t.equal(block.types[name], needs64 ? 'UInt64' : 'UInt32');
              wide += needs64 ? 1 : 0;
            }
            const single = opened.singleRows(month, left);
            t.same(
              single.map(({ position }) => position),
              all.flatMap((_, position) => (left.has(position) ? [] : [position])),
            );
            for (const [index, { bytes }] of single.entries()) {
              const row = kept[index];
              t.ok(
                row &&
                  bytes.subarray(0, usageRow.segment).equals(packValues([row]).subarray(0, 48)),
              );
              t.equal(bytes.readBigUInt64LE(usageRow.segment), BigInt(segmentId));
            }
          }
        }
      }),
      { numRuns: 300 },
    );
    t.ok(wide > 0, 'there were columns of 64 bits');
  },
);

function groupBy<T>(all: readonly T[], keyOfOne: (one: T) => number): Map<number, T[]> {
  const groups = new Map<number, T[]>();
  for (const one of all) groups.set(keyOfOne(one), [...(groups.get(keyOfOne(one)) ?? []), one]);
  return groups;
}

function keyOf(column: string): (typeof valueNames)[number] {
  const name = valueNames[usageColumns.indexOf(column as (typeof usageColumns)[number])];
  if (name === undefined) throw new Error(`${column} is no column of rows`);
  return name;
}

const entry = { userId: 5, nodeProtocolId: 6, bytesUp: 7, bytesDown: 8, recordedAt: 1_795e9 };

t.test('two segments can be open at the same time', async (t) => {
  const rows = (userId: number) => compactBlocks(packUsage(userId, [{ ...entry, userId }]));
  const one = openUsageRows({ blocks: rows(1), rows: 1, segmentId: 10 }, allocate);
  const other = openUsageRows({ blocks: rows(2), rows: 1, segmentId: 20 }, allocate);
  for (const [opened, userId, segment] of [
    [one, 1n, 10n],
    [other, 2n, 20n],
    [one, 1n, 10n],
  ] as const) {
    const [month] = opened.months;
    if (month === undefined) throw new Error('no month');
    const { columns } = readNative(opened.payload(month, none).bytes);
    t.match(columns, { node_id: [userId], user_id: [userId], segment: [segment] });
  }
});

t.test('a payload says where the columns lie that settle needs', async (t) => {
  const { bytes, columns, rows } = payloadOf(
    packUsage(3, [
      { ...entry, subscriptionId: 2 ** 40, bytesUp: 1 },
      { ...entry, subscriptionId: 9, bytesUp: 2 },
    ]),
  );
  t.equal(rows, 2);
  t.match(columns, {
    subscriptionId: { width: 8 },
    bytesUp: { width: 4 },
    bytesDown: { width: 4 },
  });
  t.equal(bytes.readBigUInt64LE(columns.subscriptionId.at), 9n);
  t.equal(bytes.readBigUInt64LE(columns.subscriptionId.at + 8), 2n ** 40n);
  t.equal(bytes.readUInt32LE(columns.bytesUp.at), 2);
  t.equal(bytes.readUInt32LE(columns.bytesDown.at + 4), 8);
});

t.test('blocks that do not hold the sealed rows', async (t) => {
  const blocks = compactBlocks(packUsage(3, [entry, entry]));
  for (const [bytes, rows] of [
    [blocks, 1],
    [blocks, 3],
    [blocks.subarray(1), 2],
    [blocks.subarray(0, -1), 2],
  ] as const) {
    t.throws(() => openUsageRows({ blocks: bytes, rows, segmentId }, allocate), {
      code: 'SEGMENT_ROWS_LOST',
      message: `Segment ${segmentId} is not ${rows} rows of usage as Core writes them`,
    });
  }
});

t.test('a row by the names of its columns', async (t) => {
  const opened = openUsageRows(
    { blocks: compactBlocks(packUsage(3, [entry])), rows: 1, segmentId },
    allocate,
  );
  const [month] = opened.months;
  const [row] = month === undefined ? [] : opened.singleRows(month, none);
  t.match(row && decodeRow('usage', row.bytes), { node_id: 3, user_id: 5, subscription_id: 0 });
});
