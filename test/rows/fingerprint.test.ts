import fc from 'fast-check';
import t from 'tap';
import { expandUsage } from '../../src/rows/usage-rows.ts';
import { fingerprintOf, scanUsage } from '../../src/rows/wasm.ts';
import { copyOf } from '../support/copy-of.ts';

const mask = (1n << 64n) - 1n;
const rotate = (x: bigint, bits: bigint): bigint => ((x << bits) | (x >> (64n - bits))) & mask;
const times = (x: bigint, y: bigint): bigint => (x * y) & mask;
const c1 = 0x87c37b91114253d5n;
const c2 = 0x4cf5ad432745937fn;

function finish(hash: bigint): bigint {
  const first = times(hash ^ (hash >> 33n), 0xff51afd7ed558ccdn);
  const second = times(first ^ (first >> 33n), 0xc4ceb9fe1a85ec53n);
  return second ^ (second >> 33n);
}

/** The first half of MurmurHash3_x64_128 with seed 0, as its author wrote it, in big integers. */
function murmur(data: Uint8Array): bigint {
  const padded = new DataView(new ArrayBuffer(Math.ceil((data.length + 1) / 16) * 16));
  data.forEach((byte, index) => {
    padded.setUint8(index, byte);
  });
  let h1 = 0n;
  let h2 = 0n;
  for (let at = 0; at < padded.byteLength; at += 16) {
    h1 ^= times(rotate(times(padded.getBigUint64(at, true), c1), 31n), c2);
    const isWhole = at + 16 <= data.length;
    if (isWhole) h1 = (times((rotate(h1, 27n) + h2) & mask, 5n) + 0x52dce729n) & mask;
    h2 ^= times(rotate(times(padded.getBigUint64(at + 8, true), c2), 33n), c1);
    if (isWhole) h2 = (times((rotate(h2, 31n) + h1) & mask, 5n) + 0x38495ab5n) & mask;
  }
  h1 ^= BigInt(data.length);
  h2 ^= BigInt(data.length);
  h1 = (h1 + h2) & mask;
  h2 = (h2 + h1) & mask;
  h1 = finish(h1);
  h2 = finish(h2);
  return BigInt.asIntN(64, h1 + h2);
}

t.test('the published values of MurmurHash3_x64_128', async (t) => {
  const published = {
    '': 0n,
    hello: 0xcbd8a7b341bd9b02n,
    'The quick brown fox jumps over the lazy dog': 0xe34bbc7bbc071b6cn,
  };
  for (const [of, hash] of Object.entries(published)) {
    t.equal(fingerprintOf(Buffer.from(of)), BigInt.asIntN(64, hash), of);
  }
});

t.test('any bytes of any length', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      return fingerprintOf(bytes) === murmur(bytes);
    }),
    { numRuns: 2_000 },
  );
});

t.test('a body larger than every body before', async (t) => {
  const bytes = Buffer.alloc(5_000_000, 'seven letters');
  const before = fingerprintOf(bytes);
  t.equal(before, murmur(bytes));
  bytes[4_999_999] = 0;
  t.not(fingerprintOf(bytes), before);
});

t.test('the scanner gives the same fingerprint with the rows', async (t) => {
  const bounds = { entriesMax: 10_000, nowMs: Date.now() };
  for (const count of [0, 1, 3, 10_000]) {
    const entry = {
      userId: 1,
      subscriptionId: null,
      nodeProtocolId: 1,
      bytesUp: 2 ** 40,
      bytesDown: 0,
      recordedAt: '2026-11-01T00:00:00Z',
    };
    const body = Buffer.from(JSON.stringify({ entries: new Array(count).fill(entry) }));
    const scanned = scanUsage(7, body, bounds);
    t.equal(scanned?.rows, count);
    t.equal(scanned?.fingerprint, fingerprintOf(body));
    const bytes = scanned && copyOf(scanned.bytes);
    t.ok(bytes && expandUsage(bytes, count), 'the later call has left the rows as they were');
    const again = scanUsage(7, body, bounds);
    t.same(again && copyOf(again.bytes), bytes, 'the same body gives the same rows');
    t.throws(() => again && copyOf(again.bytes), 'a result is copied only once');
  }
});
