import { integerIn, type Random } from '../simulator/random.ts';

/** Texts that parsers often handle wrongly. */
const tokens = [
  'NaN',
  '1e400',
  '-1e400',
  '9007199254740992',
  '9007199254740993',
  '18446744073709551616',
  '-0',
  '1.0',
  '1e0',
  '0.1',
  '-1',
  'null',
  'true',
  '[]',
  '{}',
  '""',
  '"\\ud800"',
  '"\\udc00\\ud800"',
  '"\\u0000"',
  '"__proto__":{"polluted":1},',
  '"constructor":{"prototype":{"polluted":1}},',
  '"entries":[],',
  '"2026-02-30T00:00:00Z"',
  '"2026-06-30T23:59:60Z"',
  '"2026-01-01T00:00:00+24:00"',
  '"0000-00-00T00:00:00Z"',
  '\u0000',
  '\u2028',
  '\ufeff',
  '\\',
  '"',
  '/**/',
  ',',
  '\r\n',
  '[['.repeat(2_000),
  '{"a":'.repeat(10_000),
];

/** A random offset from 0 to the length, both included. */
function offsetIn(random: Random, bytes: Buffer): number {
  return integerIn(random, 0, bytes.length);
}

export function truncate(random: Random, bytes: Buffer): Buffer {
  return bytes.subarray(0, offsetIn(random, bytes));
}

/** Flips one bit in each of up to four bytes. */
export function flip(random: Random, bytes: Buffer): Buffer {
  if (bytes.length === 0) return bytes;
  const flipped = Buffer.from(bytes);
  for (let count = integerIn(random, 1, 4); count > 0; count -= 1) {
    const at = integerIn(random, 0, bytes.length - 1);
    flipped[at] = (flipped[at] ?? 0) ^ (1 << integerIn(random, 0, 7));
  }
  return flipped;
}

/** The beginning of one body and the end of another. */
export function splice(random: Random, bytes: Buffer, other: Buffer): Buffer {
  return Buffer.concat([truncate(random, bytes), other.subarray(offsetIn(random, other))]);
}

/** Repeats a part of the bytes, up to about 100 KB. */
export function repeat(random: Random, bytes: Buffer): Buffer {
  const from = offsetIn(random, bytes);
  const part = bytes.subarray(from, from + integerIn(random, 1, 100));
  const times = integerIn(random, 2, random() < 0.05 ? 1_000 : 20);
  const parts = Array.from({ length: times }, () => part);
  return Buffer.concat([bytes.subarray(0, from), ...parts, bytes.subarray(from)]);
}

/** Inserts a token somewhere, or replaces a value by it. */
function insertToken(random: Random, bytes: Buffer): Buffer {
  const token = Buffer.from(tokens[integerIn(random, 0, tokens.length - 1)] ?? '');
  const text = bytes.toString('latin1');
  const values = [...text.matchAll(/(?<=":)(?:"[^"]*"|-?\d+|null)/g)];
  const value = values[integerIn(random, 0, Math.max(0, values.length - 1))];
  if (value === undefined || random() < 0.3) {
    const at = offsetIn(random, bytes);
    return Buffer.concat([bytes.subarray(0, at), token, bytes.subarray(at)]);
  }
  const end = value.index + value[0].length;
  return Buffer.concat([bytes.subarray(0, value.index), token, bytes.subarray(end)]);
}

/** Applies one of the changes above, or none. */
export function mutate(random: Random, bytes: Buffer, other: Buffer): Buffer {
  const roll = random();
  if (roll < 0.2) return bytes;
  if (roll < 0.3) return truncate(random, bytes);
  if (roll < 0.5) return flip(random, bytes);
  if (roll < 0.6) return splice(random, bytes, other);
  if (roll < 0.7) return repeat(random, bytes);
  return insertToken(random, bytes);
}
