import fc from 'fast-check';
import t from 'tap';
import type { UsageEntry } from '../../src/contract/node.ts';
import { packUsage, usageRow } from '../../src/rows/pack.ts';

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
