import fc from 'fast-check';
import t from 'tap';
import { compactBlocks } from '../../src/rows/compact.ts';
import { packUsage, usageRow } from '../../src/rows/pack.ts';
import { expandUsage } from '../../src/rows/usage-rows.ts';
import { compactUsage } from '../../src/rows/wasm.ts';
import { packValues } from '../support/native.ts';

/** Any values that fit the columns, not only those that the contract allows. */
const row = fc.record({
  nodeProtocolId: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  userId: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  subscriptionId: fc.oneof(fc.constant(0n), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  bytesUp: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  bytesDown: fc.oneof(fc.constant(0n), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  recordedAt: fc.nat({ max: 4_294_967_295 }),
});
const nodeRows = fc.record({
  nodeId: fc.nat({ max: 4_294_967_295 }),
  rows: fc.array(row, { minLength: 1, maxLength: 40 }),
});

type NodeRows = typeof nodeRows extends fc.Arbitrary<infer T> ? T : never;

function pack({ nodeId, rows }: NodeRows): Buffer {
  return packValues(
    rows.map((one) => ({ ...one, nodeId: BigInt(nodeId), recordedAt: BigInt(one.recordedAt) })),
  );
}

function compact(bytes: Buffer): Buffer {
  return compactUsage(bytes).bytes;
}

t.test('joined blocks of any rows expand to the same bytes', async (t) => {
  fc.assert(
    fc.property(fc.array(nodeRows, { maxLength: 6 }), (requests) => {
      const packed = requests.map(pack);
      const all = Buffer.concat(packed);
      const back = expandUsage(Buffer.concat(packed.map(compact)), all.length / usageRow.length);
      return back?.equals(all) === true;
    }),
    { numRuns: 2_000 },
  );
  t.pass();
});

t.test('compact rows take a third of packed ones, for posts of any length', async (t) => {
  for (const count of [1, 10_000, 100]) {
    const rows = packUsage(
      7,
      Array.from({ length: count }, (_, index) => ({
        userId: 100_000 + index * 17,
        ...(index % 3 === 0 ? {} : { subscriptionId: 150_000 + index * 17 }),
        nodeProtocolId: 9,
        bytesUp: index * 1_000,
        bytesDown: index * 1_000_000,
        recordedAt: 1_795_600_000_000,
      })),
    );
    const block = compact(rows);
    t.ok(expandUsage(block, count)?.equals(rows));
    t.ok(block.length < count * 18 + 20, `${block.length} bytes for ${count} rows`);
  }
});

t.test('a block that is damaged or has another number of rows is refused', async (t) => {
  const entry = { userId: 5, nodeProtocolId: 6, bytesUp: 7, bytesDown: 8, recordedAt: 9_000 };
  const block = compact(packUsage(3, [entry, entry, entry]));
  t.ok(expandUsage(block, 3));
  t.notOk(expandUsage(block, 2), 'more rows than expected');
  t.notOk(expandUsage(block, 4), 'fewer rows than expected');
  t.notOk(expandUsage(Buffer.concat([block, Buffer.of(0x80)]), 3), 'a torn end');
  for (let cut = 1; cut < block.length; cut += 1) {
    t.notOk(expandUsage(block.subarray(0, cut), 3), `cut at ${cut}`);
  }
  t.notOk(expandUsage(Buffer.alloc(12, 0xff), 1), 'a number without an end');
  const early = Buffer.from(block);
  early[early.length - 1] = 0x01;
  t.ok(expandUsage(early, 3), 'a time a second earlier');
  const negative = compact(packUsage(3, [{ ...entry, recordedAt: 0 }]));
  negative[negative.length - 1] = 0x01;
  t.notOk(expandUsage(negative, 1), 'a time before 1970');
});

t.test('a damaged block is refused, or gives rows that can be compacted again', async (t) => {
  const good = packUsage(
    3,
    Array.from({ length: 20 }, (_, index) => ({
      userId: 1_000 + index * 7,
      nodeProtocolId: 9,
      bytesUp: index ** 5,
      bytesDown: index ** 9,
      recordedAt: 1_795_600_000_000 + index * 1_000,
    })),
  );
  const block = compact(good);
  let refused = 0;
  fc.assert(
    fc.property(fc.nat(block.length - 1), fc.integer({ min: 1, max: 255 }), (at, flipped) => {
      const damaged = Buffer.from(block);
      damaged[at] = (damaged[at] ?? 0) ^ flipped;
      const read = expandUsage(damaged, 20);
      if (read === undefined) refused += 1;
      else if (expandUsage(compactBlocks(read), 20)?.equals(read) !== true) return false;
      // The damaged block must not have harmed the module's memory.
      return expandUsage(block, 20)?.equals(good) === true;
    }),
    { numRuns: 5_000 },
  );
  t.ok(refused > 0, `${refused} were refused`);
});
