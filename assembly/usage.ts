import {
  BYTES_DOWN,
  BYTES_UP,
  NODE_PROTOCOL_ID,
  RECORDED_AT,
  ROW_BYTES,
  SEGMENT,
  SUBSCRIPTION_ID,
  USER_ID,
} from './row';

/**
 * Scans the body of POST /node/usage, JSON bytes, straight into packed rows (src/rows/pack.ts).
 * AssemblyScript, which scripts/build.mjs compiles to WebAssembly.
 *
 * The scanner takes only a body that it is certain of. For anything unusual (escapes, exponents,
 * unknown or repeated fields, fractions past milliseconds) it answers UNSURE. Then the caller asks
 * zod, which is the contract and the only source of error messages. The scanner repeats the
 * contract's field names, so a change of the contract changes both. test/rows/usage-scanner.test.ts
 * checks that zod takes every body that the scanner takes, with the same rows.
 *
 * Memory: the body lies at `input` and 16 zero bytes behind it. A zero is no valid character, so the
 * scan stops at the first zero, and what lies behind the zeros changes nothing. One read takes up to
 * 26 bytes. The rows go to `output`.
 */

const UNSURE: i32 = -1;

/** One bit a field; subscriptionId may be missing. */
const HAS_USER: u64 = 1;
const HAS_SUBSCRIPTION: u64 = 2;
const HAS_PROTOCOL: u64 = 4;
const HAS_UP: u64 = 8;
const HAS_DOWN: u64 = 16;
const HAS_TIME: u64 = 32;
const REQUIRED: u64 = HAS_USER | HAS_PROTOCOL | HAS_UP | HAS_DOWN | HAS_TIME;

const SAFE_INTEGER_MAX: u64 = 9007199254740991;

/** The last time stamp of 24 characters, and what timestamp() found in it. */
let timeHead: u64 = 0;
let timeMiddle: u64 = 0;
let timeTail: u64 = 0;
let timeFound: u64 = 0;
/** The ten characters of the last day, and its number since 1970. */
let dayHead: u64 = 0;
let dayTail: u16 = 0;
let dayNumber: i64 = 0;

/**
 * A reader returns what it found as one number: the value in the lower bits, and how many bytes it took
 * in the upper eight. A function cannot return two numbers, and a global would cost a store and a load.
 * 0 means that the reader found nothing.
 */
const LENGTH_SHIFT: u64 = 56;
const VALUE_MASK: u64 = (1 << LENGTH_SHIFT) - 1;

const ZEROS: u64 = 0x3030303030303030;
const POWERS_OF_TEN = memory.data<u64>([
  1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000,
]);

function skipSpace(p: usize): usize {
  while (true) {
    const c = load<u8>(p);
    if (c != 0x20 && c != 0x0a && c != 0x0d && c != 0x09) return p;
    p += 1;
  }
}

/** The place after white space and `c`, or 0 if there is no `c`. */
function take(p: usize, c: u8): usize {
  return load<u8>(p) == c ? p + 1 : takeSpaced(p, c);
}

function takeSpaced(p: usize, c: u8): usize {
  p = skipSpace(p);
  return load<u8>(p) == c ? p + 1 : 0;
}

/**
 * Takes eight characters, each as `character ^ '0'`. The lowest bit that is set in the result belongs to
 * the first character that is no digit; the bits above it mean nothing.
 */
function nonDigits(word: u64): u64 {
  return ((word + 0x7676767676767676) | word) & 0x8080808080808080;
}

/** The number that eight digits stand for. The first digit is in the lowest byte. */
function eightDigits(digits: u64): u64 {
  digits = (digits * 2561) >> 8;
  digits = ((digits & 0x00ff00ff00ff00ff) * 6553601) >> 16;
  return ((digits & 0x0000ffff0000ffff) * 42949672960001) >> 32;
}

/**
 * An integer from 0 to 2^53-1 without a leading zero. The caller checks what follows, so `1.5` and `1e3`
 * fail there.
 */
function integer(p: usize): u64 {
  const word = load<u64>(p) ^ ZEROS;
  const wrong = nonDigits(word);
  if (wrong == 0) return longInteger(p, word);
  const length = ctz(wrong) >> 3;
  if (length == 0 || (length > 1 && (word & 0xff) == 0)) return 0;
  return eightDigits(word << (64 - (length << 3))) | (length << LENGTH_SHIFT);
}

/** An integer whose first eight digits are `word`. */
function longInteger(p: usize, word: u64): u64 {
  if ((word & 0xff) == 0) return 0;
  const head = eightDigits(word);
  const rest = load<u64>(p, 8) ^ ZEROS;
  const wrong = nonDigits(rest);
  if (wrong == 0) {
    const value = head * 100_000_000 + eightDigits(rest);
    const next: u32 = <u32>load<u8>(p, 16) - 0x30;
    return next <= 9 || value > SAFE_INTEGER_MAX ? 0 : value | (16 << LENGTH_SHIFT);
  }
  const length = ctz(wrong) >> 3;
  if (length == 0) return head | (8 << LENGTH_SHIFT);
  const tail = eightDigits(rest << (64 - (length << 3)));
  const value = head * load<u64>(POWERS_OF_TEN + ((<usize>length) << 3)) + tail;
  return value | ((8 + length) << LENGTH_SHIFT);
}

/** The number of the two digits at `p`, or over 99 if they are no digits. */
function twoDigits(p: usize): u32 {
  const tens: u32 = <u32>load<u8>(p) - 0x30;
  const ones: u32 = <u32>load<u8>(p + 1) - 0x30;
  return tens > 9 || ones > 9 ? 1000 : tens * 10 + ones;
}

function daysInMonth(year: u32, month: u32): u32 {
  if (month == 2) {
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28;
  }
  return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

/**
 * Days since 1970 of the `YYYY-MM-DD` at `p`, or -1. It remembers the last day, because nearly all
 * entries of a body have the same one. Source: https://howardhinnant.github.io/date_algorithms.html
 */
function day(p: usize): i64 {
  const head = load<u64>(p);
  const tail = load<u16>(p + 8);
  if (head == dayHead && tail == dayTail) return dayNumber;
  const century = twoDigits(p);
  const rest = twoDigits(p + 2);
  const month = twoDigits(p + 5);
  const date = twoDigits(p + 8);
  if (load<u8>(p + 4) != 0x2d || load<u8>(p + 7) != 0x2d) return -1;
  if (century > 99 || rest > 99 || month < 1 || month > 12) return -1;
  const year = century * 100 + rest;
  // Core takes no year before 2020, and zod says so.
  if (year < 1970 || date < 1 || date > daysInMonth(year, month)) return -1;
  const y: i64 = <i64>year - (month <= 2 ? 1 : 0);
  const era: i64 = y / 400;
  const yearOfEra: i64 = y - era * 400;
  const shifted: i64 = <i64>(month > 2 ? month - 3 : month + 9);
  const dayOfYear: i64 = (153 * shifted + 2) / 5 + <i64>date - 1;
  const dayOfEra: i64 = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear;
  dayHead = head;
  dayTail = tail;
  dayNumber = era * 146097 + dayOfEra - 719468;
  return dayNumber;
}

/**
 * Milliseconds since 1970 of `"YYYY-MM-DDTHH:MM:SS[.f|.ff|.fff](Z|±HH:MM)"` with its quotes. It
 * remembers the last time stamp, because nearly all entries of a body have the same one.
 */
function timestamp(start: usize): u64 {
  const p = start + 1;
  const isLast = load<u64>(p) == timeHead && load<u64>(p, 8) == timeMiddle;
  if (isLast && load<u64>(p, 16) == timeTail && load<u8>(p, 24) == 0x22) {
    return load<u8>(start) == 0x22 ? timeFound : 0;
  }
  const found = readTime(start);
  // 24 characters and two quotes are what JSON of toISOString() takes.
  if (found >> LENGTH_SHIFT == 26) {
    timeHead = load<u64>(p);
    timeMiddle = load<u64>(p, 8);
    timeTail = load<u64>(p, 16);
    timeFound = found;
  }
  return found;
}

function readTime(start: usize): u64 {
  if (load<u8>(start) != 0x22) return 0;
  const p = start + 1;
  const days = day(p);
  if (days < 0) return 0;
  const hour = twoDigits(p + 11);
  const minute = twoDigits(p + 14);
  const second = twoDigits(p + 17);
  if (load<u8>(p + 10) != 0x54 || load<u8>(p + 13) != 0x3a || load<u8>(p + 16) != 0x3a) return 0;
  if (hour > 23 || minute > 59 || second > 59) return 0;
  let ms: i64 = ((days * 24 + hour) * 60 + minute) * 60 + second;
  ms *= 1000;
  let q = p + 19;
  if (load<u8>(q) == 0x2e) {
    q += 1;
    let scale: i64 = 100;
    let digit: u32 = <u32>load<u8>(q) - 0x30;
    if (digit > 9) return 0;
    while (digit <= 9) {
      // Zod decides what a fourth digit means.
      if (scale == 0) return 0;
      ms += <i64>digit * scale;
      scale /= 10;
      q += 1;
      digit = <u32>load<u8>(q) - 0x30;
    }
  }
  const zone = load<u8>(q);
  if (zone == 0x5a) {
    q += 1;
  } else if (zone == 0x2b || zone == 0x2d) {
    const zoneHour = twoDigits(q + 1);
    const zoneMinute = twoDigits(q + 4);
    if (zoneHour > 23 || zoneMinute > 59 || load<u8>(q + 3) != 0x3a) return 0;
    const offsetMs: i64 = <i64>(zoneHour * 60 + zoneMinute) * 60000;
    ms += zone == 0x2b ? -offsetMs : offsetMs;
    q += 6;
  } else {
    return 0;
  }
  // An offset can move a time before 1970. Core does not take that, and the lower bits hold no sign.
  if (load<u8>(q) != 0x22 || ms < 0) return 0;
  return <u64>ms | ((<u64>(q + 1 - start)) << LENGTH_SHIFT);
}

/** The bit of the field whose name and closing quote are at `p`, and their length; 0 if it is no field. */
function fieldName(p: usize): u64 {
  const head = load<u64>(p);
  if ((head & 0x00ffffffffffffff) == 0x22644972657375) return HAS_USER | (7 << LENGTH_SHIFT);
  if (head == 0x2270557365747962) return HAS_UP | (8 << LENGTH_SHIFT);
  if (head == 0x776f447365747962 && load<u16>(p, 8) == 0x226e) {
    return HAS_DOWN | (10 << LENGTH_SHIFT);
  }
  if (head == 0x646564726f636572 && (load<u32>(p, 8) & 0xffffff) == 0x227441) {
    return HAS_TIME | (11 << LENGTH_SHIFT);
  }
  const tail = load<u64>(p, 8) & 0x00ffffffffffffff;
  if (head == 0x7069726373627573 && tail == 0x2264496e6f6974) {
    return HAS_SUBSCRIPTION | (15 << LENGTH_SHIFT);
  }
  if (head == 0x746f725065646f6e && tail == 0x2264496c6f636f) {
    return HAS_PROTOCOL | (15 << LENGTH_SHIFT);
  }
  return 0;
}

/** The offset of a field's number in a row. */
function placeOf(field: u64): usize {
  if (field == HAS_USER) return USER_ID;
  if (field == HAS_UP) return BYTES_UP;
  if (field == HAS_DOWN) return BYTES_DOWN;
  return field == HAS_PROTOCOL ? NODE_PROTOCOL_ID : SUBSCRIPTION_ID;
}

/**
 * Reads the value of `field` into the row at `row`. The row has no subscription yet, so null changes
 * nothing.
 * @returns the length of the value, or 0 if the scanner is not certain of it.
 */
function fieldValue(p: usize, field: u64, row: usize, earliestMs: i64, latestMs: i64): usize {
  if (field == HAS_TIME) {
    const found = timestamp(p);
    const ms: i64 = <i64>(found & VALUE_MASK);
    // If timestamp() found nothing, `ms` is 0, which is too early.
    if (ms < earliestMs || ms > latestMs) return 0;
    store<u32>(row + RECORDED_AT, <u32>(ms / 1000));
    return <usize>(found >> LENGTH_SHIFT);
  }
  if (field == HAS_SUBSCRIPTION && load<u32>(p) == 0x6c6c756e) return 4;
  const found = integer(p);
  const value = found & VALUE_MASK;
  // Ids start at 1.
  if (value == 0 && (field & (HAS_UP | HAS_DOWN)) == 0) return 0;
  store<u64>(row + placeOf(field), value);
  return <usize>(found >> LENGTH_SHIFT);
}

/**
 * Reads an entry, whose opening brace is before `p`, into the row at `row`.
 * @returns the place after the entry, or 0 if the scanner is not certain of it.
 */
function entry(p: usize, row: usize, nodeId: u32, earliestMs: i64, latestMs: i64): usize {
  store<u32>(row, nodeId);
  store<u64>(row + SUBSCRIPTION_ID, 0);
  store<u64>(row + SEGMENT, 0);
  let seen: u64 = 0;
  while (true) {
    p = take(p, 0x22);
    if (p == 0) return 0;
    const name = fieldName(p);
    const field = name & VALUE_MASK;
    if (field == 0 || (seen & field) != 0) return 0;
    seen |= field;
    p = take(p + <usize>(name >> LENGTH_SHIFT), 0x3a);
    if (p == 0) return 0;
    if (load<u8>(p) <= 0x20) p = skipSpace(p);
    const length = fieldValue(p, field, row, earliestMs, latestMs);
    if (length == 0) return 0;
    p += length;
    const next = take(p, 0x2c);
    if (next == 0) break;
    p = next;
  }
  return (seen & REQUIRED) == REQUIRED ? take(p, 0x7d) : 0;
}

/**
 * Scans a whole body.
 * @returns the number of rows at `output`, or UNSURE; then the bytes at `output` mean nothing.
 */
export function scanUsage(
  input: usize,
  length: usize,
  output: usize,
  entriesMax: i32,
  nodeId: u32,
  earliestMs: f64,
  latestMs: f64,
): i32 {
  let p = take(input, 0x7b);
  if (p == 0) return UNSURE;
  p = take(p, 0x22);
  if (p == 0 || load<u64>(p) != 0x2273656972746e65) return UNSURE;
  p = take(p + 8, 0x3a);
  if (p == 0) return UNSURE;
  p = take(p, 0x5b);
  if (p == 0) return UNSURE;
  let rows: i32 = 0;
  const empty = take(p, 0x5d);
  if (empty != 0) {
    p = empty;
  } else {
    const earliest: i64 = <i64>earliestMs;
    const latest: i64 = <i64>latestMs;
    let row = output;
    while (true) {
      if (rows == entriesMax) return UNSURE;
      p = take(p, 0x7b);
      if (p == 0) return UNSURE;
      p = entry(p, row, nodeId, earliest, latest);
      if (p == 0) return UNSURE;
      rows += 1;
      row += ROW_BYTES;
      const next = take(p, 0x2c);
      if (next == 0) break;
      p = next;
    }
    p = take(p, 0x5d);
    if (p == 0) return UNSURE;
  }
  p = take(p, 0x7d);
  if (p == 0) return UNSURE;
  return skipSpace(p) == input + length ? rows : UNSURE;
}
