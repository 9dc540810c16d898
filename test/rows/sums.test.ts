import fc from 'fast-check';
import t from 'tap';
import type { OutboundItem } from '../../src/contract/node.ts';
import { packOutbounds, packUsage } from '../../src/rows/pack.ts';
import { createOutboundSums, createUsageSums } from '../../src/rows/sums.ts';
import { payloadOf } from '../support/native.ts';

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
