import fc from 'fast-check';
import t from 'tap';
import { sessionEventTypes, vpnProtocols } from '../../src/contract/enums.ts';
import type { OutboundItem, SessionEvent, UsageEntry } from '../../src/contract/node.ts';
import {
  packOutbounds,
  packSessions,
  packUsage,
  sessionRow,
  sessionRowLength,
  usageRow,
} from '../../src/rows/pack.ts';
import { openSessionRows } from '../../src/rows/session-rows.ts';
import { createOutboundSums, createUsageSums } from '../../src/rows/sums.ts';
import { payloadOf } from '../support/native.ts';

const id = fc.maxSafeNat().map((n) => Math.max(1, n));
const bytes = fc.maxSafeNat();
const atMs = fc.integer({ min: 1_577_836_800_000, max: 1_900_000_000_000 });

const usageEntries: fc.Arbitrary<UsageEntry[]> = fc.array(
  fc.record({
    userId: id,
    subscriptionId: fc.oneof(
      fc.constant(null),
      fc.constant(undefined),
      fc.integer({ min: 1, max: 3 }),
      id,
    ),
    nodeProtocolId: id,
    bytesUp: bytes,
    bytesDown: bytes,
    recordedAt: atMs,
  }),
);

const sessionEvents: fc.Arbitrary<SessionEvent[]> = fc.array(
  fc
    .record({
      userId: id,
      protocol: fc.constantFrom(...vpnProtocols),
      eventType: fc.constantFrom(...sessionEventTypes),
      occurredAt: atMs,
      ipAddress: fc.option(fc.string({ unit: 'binary', maxLength: 64 }), { nil: undefined }),
    })
    .map(({ ipAddress, ...event }) => (ipAddress === undefined ? event : { ...event, ipAddress })),
);

function yyyymm(ms: number): number {
  const date = new Date(ms);
  return date.getUTCFullYear() * 100 + date.getUTCMonth() + 1;
}

function countBy(values: readonly number[]): Map<number, number> {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

t.test('a usage row keeps every value', async (t) => {
  fc.assert(
    fc.property(usageEntries, fc.integer({ min: 1, max: 2 ** 32 - 1 }), (entries, nodeId) => {
      const block = packUsage(nodeId, entries);
      entries.forEach((entry, index) => {
        const row = block.subarray(index * usageRow.length, (index + 1) * usageRow.length);
        t.equal(row.readUInt32LE(usageRow.nodeId), nodeId);
        t.equal(row.readBigUInt64LE(usageRow.nodeProtocolId), BigInt(entry.nodeProtocolId));
        t.equal(row.readBigUInt64LE(usageRow.userId), BigInt(entry.userId));
        t.equal(row.readBigUInt64LE(usageRow.subscriptionId), BigInt(entry.subscriptionId ?? 0));
        t.equal(row.readBigUInt64LE(usageRow.bytesUp), BigInt(entry.bytesUp));
        t.equal(row.readBigUInt64LE(usageRow.bytesDown), BigInt(entry.bytesDown));
        t.equal(row.readUInt32LE(usageRow.recordedAt), Math.floor(entry.recordedAt / 1_000));
      });
      return block.length === entries.length * usageRow.length;
    }),
    { numRuns: 30 },
  );
});

t.test('session rows are split by month, each exactly once and with the segment', async (t) => {
  fc.assert(
    fc.property(sessionEvents, fc.nat(), (events, seed) => {
      const opened = openSessionRows(packSessions(1, events), 78);
      t.same(
        opened.months.map(({ yyyymm: month, rows }) => [month, rows]),
        [...countBy(events.map((event) => yyyymm(event.occurredAt)))].sort(([a], [b]) => a - b),
      );
      for (const month of opened.months) {
        const all = opened.payload(month, new Set());
        t.equal(all.rows, month.rows);
        const rows: Buffer[] = [];
        for (let at = 0; at < all.bytes.length; ) {
          const length = sessionRowLength(all.bytes, at);
          t.equal(all.bytes.readBigUInt64LE(at + sessionRow.segment), 78n);
          rows.push(all.bytes.subarray(at, at + length));
          at += length;
        }
        t.equal(rows.length, month.rows, 'rows of different length are read to the end');
        const left = new Set([seed % rows.length]);
        const kept = rows.filter((_, position) => !left.has(position));
        const rest = opened.payload(month, left);
        t.equal(rest.rows, kept.length);
        t.ok(rest.bytes.equals(Buffer.concat(kept)));
        t.same(
          opened.singleRows(month, left).map(({ bytes }) => bytes),
          kept,
        );
      }
    }),
    { numRuns: 50 },
  );
});

const bytesSum = fc.oneof(
  { weight: 4, arbitrary: fc.nat({ max: 1_000_000 }) },
  { weight: 1, arbitrary: fc.maxSafeInteger().map(Math.abs) },
  { weight: 1, arbitrary: fc.constant(Number.MAX_SAFE_INTEGER) },
);
/** Few and many ids, from small to the largest, so that the list of sums grows and merges. */
const countedEntries = fc
  .array(
    fc.record({
      subscriptionId: fc.oneof(
        fc.constant(null),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 5_000 }),
        fc.integer({ min: Number.MAX_SAFE_INTEGER - 5, max: Number.MAX_SAFE_INTEGER }),
        fc.integer({ min: 1, max: 9 }).map((n) => n * 2 ** 32),
      ),
      bytesUp: bytesSum,
      bytesDown: bytesSum,
    }),
    { maxLength: 3_000, size: 'max' },
  )
  .map((entries) =>
    entries.map((entry) => ({
      userId: 1,
      nodeProtocolId: 1,
      recordedAt: 1_795_560_000_000,
      ...entry,
    })),
  );

t.test('sums are exact and sorted, without rows that have no subscription', async (t) => {
  fc.assert(
    fc.property(fc.array(countedEntries, { maxLength: 4 }), (blocks) => {
      const expected = new Map<number, { up: bigint; down: bigint; rows: bigint }>();
      const sums = createUsageSums();
      for (const entries of blocks) {
        if (entries.length > 0) sums.add(payloadOf(packUsage(1, entries)));
        for (const entry of entries) {
          if (entry.subscriptionId === null) continue;
          const sum = expected.get(entry.subscriptionId) ?? { up: 0n, down: 0n, rows: 0n };
          sum.up += BigInt(entry.bytesUp);
          sum.down += BigInt(entry.bytesDown);
          sum.rows += 1n;
          expected.set(entry.subscriptionId, sum);
        }
      }
      const ids = [...expected.keys()].sort((a, b) => a - b);
      const columns = sums.columns();
      t.same([...columns.subscriptionIds], ids.map(BigInt));
      t.same(
        [...columns.bytesUp],
        ids.map((id) => expected.get(id)?.up),
      );
      t.same(
        [...columns.bytesDown],
        ids.map((id) => expected.get(id)?.down),
      );
      t.same(
        [...columns.rows],
        ids.map((id) => expected.get(id)?.rows),
      );
      t.equal(sums.size, ids.length);
      t.equal(
        BigInt(sums.rows),
        columns.rows.reduce((all, rows) => all + rows, 0n),
      );
    }),
    { numRuns: 40 },
  );
});

t.test('a sum past 64 bits stays at the largest number', async (t) => {
  const largest = { subscriptionId: 7, bytesUp: Number.MAX_SAFE_INTEGER, bytesDown: 1 };
  const block = packUsage(
    1,
    Array.from({ length: 2_049 }, () => ({
      userId: 1,
      nodeProtocolId: 1,
      recordedAt: 1_795_560_000_000,
      ...largest,
    })),
  );
  const sums = createUsageSums();
  sums.add(payloadOf(block));
  t.same(sums.columns(), {
    subscriptionIds: BigUint64Array.of(7n),
    bytesUp: BigUint64Array.of(2n ** 64n - 1n),
    bytesDown: BigUint64Array.of(2_049n),
    rows: BigUint64Array.of(2_049n),
  });
});

t.test('sums of outbound rows by node and tag', async (t) => {
  const items: OutboundItem[] = [
    { tag: 'direct', bytesUp: Number.MAX_SAFE_INTEGER, bytesDown: 1 },
    { tag: 'прокси', bytesUp: 2, bytesDown: 3 },
    { tag: 'direct', bytesUp: Number.MAX_SAFE_INTEGER, bytesDown: 4 },
  ];
  const sums = createOutboundSums();
  sums.add(packOutbounds(9, items));
  sums.add(packOutbounds(2, items.slice(1, 2)));
  t.same(sums.list(), [
    { nodeId: 2, tag: 'прокси', bytesUp: 2n, bytesDown: 3n },
    { nodeId: 9, tag: 'direct', bytesUp: 2n * BigInt(Number.MAX_SAFE_INTEGER), bytesDown: 5n },
    { nodeId: 9, tag: 'прокси', bytesUp: 2n, bytesDown: 3n },
  ]);
});
