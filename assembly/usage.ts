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
 * Reads the body of POST /node/usage, JSON bytes, straight into packed RowBinary rows (the layout
 * of src/ingest/pack.ts). AssemblyScript, compiled to WebAssembly by scripts/build.mjs.
 *
 * It takes what it is certain of and nothing else: for anything unusual (escapes, exponents,
 * unknown or repeated fields, fractions past milliseconds) it answers UNSURE, and the caller asks
 * zod, which is the contract and the only source of error messages. What it takes, zod takes too,
 * with the same rows: test/scan.test.ts holds the two against each other.
 *
 * Memory: the body lies at `input`, followed by 16 zero bytes, so that a read of eight bytes at its
 * end stays in bounds and meets no valid character; the rows are written at `output`.
 */

const UNSURE: i32 = -1;

/** One bit a field; subscriptionId may be missing. */
const HAS_USER: u32 = 1;
const HAS_SUBSCRIPTION: u32 = 2;
const HAS_PROTOCOL: u32 = 4;
const HAS_UP: u32 = 8;
const HAS_DOWN: u32 = 16;
const HAS_TIME: u32 = 32;
const REQUIRED: u32 = HAS_USER | HAS_PROTOCOL | HAS_UP | HAS_DOWN | HAS_TIME;

const SAFE_INTEGER_MAX: u64 = 9007199254740991;

/** Place of the next byte to read; 0 after something that is not for certain. */
let at: usize = 0;
/** The last day read, as its ten characters, and its number since 1970. */
let dayHead: u64 = 0;
let dayTail: u16 = 0;
let dayNumber: i64 = 0;

// @ts-expect-error: decorator
function skipSpace(): void {
  while (true) {
    const c = load<u8>(at);
    if (c != 0x20 && c != 0x0a && c != 0x0d && c != 0x09) return;
    at += 1;
  }
}

/** Skips white space, then `c`. */
// @ts-expect-error: decorator
function take(c: u8): bool {
  skipSpace();
  if (load<u8>(at) != c) return false;
  at += 1;
  return true;
}

/**
 * A plain integer from 0 to 2^53-1, no leading zero. Returns u64.MAX_VALUE where it is not one.
 * What must follow is checked by the caller, so `1.5` and `1e3` fail there.
 */
// @ts-expect-error: decorator
function integer(): u64 {
  const start = at;
  let digit: u64 = <u64>load<u8>(at) - 0x30;
  if (digit > 9) return u64.MAX_VALUE;
  let value: u64 = 0;
  do {
    value = value * 10 + digit;
    at += 1;
    digit = <u64>load<u8>(at) - 0x30;
  } while (digit <= 9);
  const length = at - start;
  if (length > 16 || value > SAFE_INTEGER_MAX) return u64.MAX_VALUE;
  if (length > 1 && load<u8>(start) == 0x30) return u64.MAX_VALUE;
  return value;
}

/** Two digits at `p`, or over 99 where they are none. */
// @ts-expect-error: decorator
function twoDigits(p: usize): u32 {
  const tens: u32 = <u32>load<u8>(p) - 0x30;
  const ones: u32 = <u32>load<u8>(p + 1) - 0x30;
  return tens > 9 || ones > 9 ? 1000 : tens * 10 + ones;
}

// @ts-expect-error: decorator
function daysInMonth(year: u32, month: u32): u32 {
  if (month == 2) {
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28;
  }
  return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

/**
 * Days since 1970 of the `YYYY-MM-DD` at `p`, or -1. Nearly all entries of a body are of one day,
 * so the last one is kept. Source: https://howardhinnant.github.io/date_algorithms.html
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
  // The years that Core takes are all after 2019; earlier ones are zod's to refuse.
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
 * Milliseconds since 1970 of `"YYYY-MM-DDTHH:MM:SS[.f|.ff|.fff](Z|±HH:MM)"`, or -1. Leaves `at`
 * behind the closing quote.
 */
function timestamp(): i64 {
  if (load<u8>(at) != 0x22) return -1;
  const p = at + 1;
  const days = day(p);
  if (days < 0) return -1;
  const hour = twoDigits(p + 11);
  const minute = twoDigits(p + 14);
  const second = twoDigits(p + 17);
  if (load<u8>(p + 10) != 0x54 || load<u8>(p + 13) != 0x3a || load<u8>(p + 16) != 0x3a) return -1;
  if (hour > 23 || minute > 59 || second > 59) return -1;
  let ms: i64 = ((days * 24 + hour) * 60 + minute) * 60 + second;
  ms *= 1000;
  let q = p + 19;
  if (load<u8>(q) == 0x2e) {
    q += 1;
    let scale: i64 = 100;
    let digit: u32 = <u32>load<u8>(q) - 0x30;
    if (digit > 9) return -1;
    while (digit <= 9) {
      // A fourth digit: zod decides what becomes of it.
      if (scale == 0) return -1;
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
    if (zoneHour > 23 || zoneMinute > 59 || load<u8>(q + 3) != 0x3a) return -1;
    const offsetMs: i64 = <i64>(zoneHour * 60 + zoneMinute) * 60000;
    ms += zone == 0x2b ? -offsetMs : offsetMs;
    q += 6;
  } else {
    return -1;
  }
  if (load<u8>(q) != 0x22) return -1;
  at = q + 1;
  return ms;
}

/** Reads one field's name, behind its opening quote, with the closing quote. Its bit, or 0. */
// @ts-expect-error: decorator
function fieldName(): u32 {
  const head = load<u64>(at);
  if ((head & 0x00ffffffffffffff) == 0x22644972657375) {
    at += 7;
    return HAS_USER;
  }
  if (head == 0x2270557365747962) {
    at += 8;
    return HAS_UP;
  }
  if (head == 0x776f447365747962 && load<u16>(at + 8) == 0x226e) {
    at += 10;
    return HAS_DOWN;
  }
  if (head == 0x646564726f636572 && (load<u32>(at + 8) & 0xffffff) == 0x227441) {
    at += 11;
    return HAS_TIME;
  }
  const tail = load<u64>(at + 8) & 0x00ffffffffffffff;
  if (head == 0x7069726373627573 && tail == 0x2264496e6f6974) {
    at += 15;
    return HAS_SUBSCRIPTION;
  }
  if (head == 0x746f725065646f6e && tail == 0x2264496c6f636f) {
    at += 15;
    return HAS_PROTOCOL;
  }
  return 0;
}

/** Reads the value of `field` into the row at `row`. False where it is not for certain. */
// @ts-expect-error: decorator
function fieldValue(field: u32, row: usize, earliestMs: i64, latestMs: i64): bool {
  if (field == HAS_TIME) {
    const ms = timestamp();
    if (ms < earliestMs || ms > latestMs) return false;
    store<u32>(row + RECORDED_AT, <u32>(ms / 1000));
    return true;
  }
  if (field == HAS_SUBSCRIPTION && load<u32>(at) == 0x6c6c756e) {
    at += 4;
    store<u64>(row + SUBSCRIPTION_ID, 0);
    return true;
  }
  const value = integer();
  if (value == u64.MAX_VALUE) return false;
  if (field == HAS_UP) {
    store<u64>(row + BYTES_UP, value);
    return true;
  }
  if (field == HAS_DOWN) {
    store<u64>(row + BYTES_DOWN, value);
    return true;
  }
  // What is left are ids.
  if (value == 0) return false;
  if (field == HAS_USER) store<u64>(row + USER_ID, value);
  else if (field == HAS_PROTOCOL) store<u64>(row + NODE_PROTOCOL_ID, value);
  else store<u64>(row + SUBSCRIPTION_ID, value);
  return true;
}

/** Reads one entry, behind its opening brace, into the row at `row`. */
function entry(row: usize, nodeId: u32, earliestMs: i64, latestMs: i64): bool {
  store<u32>(row, nodeId);
  store<u64>(row + SUBSCRIPTION_ID, 0);
  store<u64>(row + SEGMENT, 0);
  let seen: u32 = 0;
  do {
    if (!take(0x22)) return false;
    const field = fieldName();
    if (field == 0 || (seen & field) != 0) return false;
    seen |= field;
    if (!take(0x3a)) return false;
    skipSpace();
    if (!fieldValue(field, row, earliestMs, latestMs)) return false;
  } while (take(0x2c));
  return take(0x7d) && (seen & REQUIRED) == REQUIRED;
}

/**
 * Reads a whole body.
 * @returns the number of rows written at `output`, or UNSURE, and then what lies there means nothing.
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
  const earliest: i64 = <i64>earliestMs;
  const latest: i64 = <i64>latestMs;
  at = input;
  if (!take(0x7b) || !take(0x22)) return UNSURE;
  if (load<u64>(at) != 0x2273656972746e65) return UNSURE;
  at += 8;
  if (!take(0x3a) || !take(0x5b)) return UNSURE;
  let rows: i32 = 0;
  if (!take(0x5d)) {
    let row = output;
    do {
      if (rows == entriesMax) return UNSURE;
      if (!take(0x7b) || !entry(row, nodeId, earliest, latest)) return UNSURE;
      rows += 1;
      row += ROW_BYTES;
    } while (take(0x2c));
    if (!take(0x5d)) return UNSURE;
  }
  if (!take(0x7d)) return UNSURE;
  skipSpace();
  return at == input + length ? rows : UNSURE;
}
