/**
 * The first 64 bits of MurmurHash3_x64_128 with seed 0 (Austin Appleby, public domain). They tell two
 * bodies apart several times as fast as SHA-256. It withstands chance, not an attacker. That is enough for
 * idempotency: keys are a node's own, so a node that makes two bodies with the same fingerprint only
 * loses its own second body.
 * Source: https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp
 */

const C1: u64 = 0x87c37b91114253d5;
const C2: u64 = 0x4cf5ad432745937f;

function scramble(word: u64, first: u64, bits: u64, second: u64): u64 {
  return rotl<u64>(word * first, bits) * second;
}

function finish(hash: u64): u64 {
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
  hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
  return hash ^ (hash >> 33);
}

/** Up to eight bytes at `p` as a little-endian number. */
function fewBytes(p: usize, count: usize): u64 {
  let word: u64 = 0;
  for (let index: usize = count; index > 0; index -= 1) {
    word = (word << 8) | <u64>load<u8>(p + index - 1);
  }
  return word;
}

/** The first 64 bits of the hash of the `length` bytes at `input`. */
export function fingerprint(input: usize, length: usize): i64 {
  const blocksEnd = input + (length & ~15);
  let h1: u64 = 0;
  let h2: u64 = 0;
  let p = input;
  for (; p < blocksEnd; p += 16) {
    h1 ^= scramble(load<u64>(p), C1, 31, C2);
    h1 = (rotl<u64>(h1, 27) + h2) * 5 + 0x52dce729;
    h2 ^= scramble(load<u64>(p, 8), C2, 33, C1);
    h2 = (rotl<u64>(h2, 31) + h1) * 5 + 0x38495ab5;
  }
  const rest = length & 15;
  if (rest > 8) h2 ^= scramble(fewBytes(p + 8, rest - 8), C2, 33, C1);
  if (rest > 0) h1 ^= scramble(fewBytes(p, min<usize>(rest, 8)), C1, 31, C2);
  h1 ^= <u64>length;
  h2 ^= <u64>length;
  h1 += h2;
  h2 += h1;
  h1 = finish(h1);
  h2 = finish(h2);
  return h1 + h2;
}
