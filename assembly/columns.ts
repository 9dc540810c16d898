/**
 * Expands compact usage to columns and sorts them as the table `usage` does: by subscription, then by
 * time. AssemblyScript, which scripts/build.mjs compiles to WebAssembly.
 *
 * There are twelve columns of 32 bits, one after another at `columns`, each with `rows` values: the
 * node, the lower and the upper half of five numbers of 64 bits, and the time. The upper halves are
 * nearly always all zero; then the worker sends ClickHouse the lower halves alone.
 */

const PROTOCOL: usize = 1;
const USER: usize = 3;
const SUBSCRIPTION: usize = 5;
const UP: usize = 7;
const DOWN: usize = 9;
const TIME: usize = 11;

/**
 * Most bits that one pass of the sort looks at, so that the counts of a digit stay in the fastest cache.
 */
const DIGIT_BITS_MAX: u32 = 11;
const COUNTS = memory.data(sizeof<u32>() << 11, sizeof<u32>());

function column(columns: usize, rows: i32, index: usize): usize {
  return columns + ((<usize>rows * index) << 2);
}

/** The highest bit of each byte. A varint sets it in all of its bytes but the last. */
const CONTINUES: u64 = 0x8080808080808080;

/** The six varints of the row that was read last. */
const FIELDS = memory.data(6 * sizeof<u64>(), sizeof<u64>());
const FIELDS_END = FIELDS + 6 * sizeof<u64>();

/** The place after the varint that readLong read last. */
let after: usize = 0;

/** Reads a varint of any length. Sets `after` past `end` if there is no varint. */
function readLong(from: usize, end: usize): u64 {
  let value: u64 = 0;
  let shift: u64 = 0;
  for (let at = from; at < end && shift < 70; at += 1) {
    const byte: u64 = load<u8>(at);
    value |= (byte & 127) << shift;
    if (byte < 128) {
      after = at + 1;
      return value;
    }
    shift += 7;
  }
  after = end + 1;
  return 0;
}

/**
 * Reads the varints of a row. Most have few bytes, so it takes them from one word: the lower seven bits
 * of each byte up to the last byte of the varint.
 * @returns the place after the row, which is past `end` if the row is torn.
 */
function readFields(from: usize, end: usize): usize {
  let at = from;
  for (let field = FIELDS; field < FIELDS_END; field += sizeof<u64>()) {
    const word = load<u64>(at);
    if ((word & 128) == 0) {
      store<u64>(field, word & 127);
      at += 1;
      continue;
    }
    let stop = ~word & CONTINUES;
    if (stop == 0) {
      store<u64>(field, readLong(at, end));
      at = after;
      continue;
    }
    stop &= 0 - stop;
    let value = word & (stop - 1) & ~CONTINUES;
    value = ((value >> 1) & 0x3f803f803f803f80) | (value & 0x007f007f007f007f);
    value = ((value >> 2) & 0x0fffc0000fffc000) | (value & 0x00003fff00003fff);
    value = ((value >> 4) & 0x00fffffff0000000) | (value & 0x000000000fffffff);
    store<u64>(field, value);
    at += (<usize>ctz(stop) + 1) >> 3;
  }
  return at;
}

/** A field that holds a difference in zigzag. */
function difference(field: usize): u64 {
  const value = load<u64>(field);
  return (value >> 1) ^ (0 - (value & 1));
}

/** For each column of 64 bits: all values of the last expandColumns, joined by OR. */
let allProtocols: u64 = 0;
let allUsers: u64 = 0;
let allSubscriptions: u64 = 0;
let allUp: u64 = 0;
let allDown: u64 = 0;
/** The earliest and the latest time of the last expandColumns. */
let earliest: u32 = 0;
let latest: u32 = 0;

/**
 * Writes the rows of all blocks (compact.ts) at `input` as columns, in their order. It reads up to seven
 * bytes past the input, which change nothing.
 * @returns `rows`, or -1 if there is another number of rows or the input is not all blocks.
 */
export function expandColumns(input: usize, length: i32, columns: usize, rows: i32): i32 {
  const end = input + <usize>length;
  let at = input;
  let row: i32 = 0;
  allProtocols = allUsers = allSubscriptions = allUp = allDown = 0;
  earliest = u32.MAX_VALUE;
  latest = 0;
  while (at < end) {
    const blockRows = readLong(at, end);
    const node = readLong(after, end);
    at = after;
    if (at > end || blockRows > <u64>(rows - row) || node > <u64>u32.MAX_VALUE) return -1;
    at = expandBlock(
      at,
      end,
      columns + ((<usize>row) << 2),
      (<usize>rows) << 2,
      <i32>blockRows,
      <u32>node,
    );
    if (at > end) return -1;
    row += <i32>blockRows;
  }
  return row == rows ? rows : -1;
}

/**
 * Writes the rows of one block. The first row goes to `start` in the first column; the columns are `stride`
 * bytes apart.
 * @returns the place after the block, which is past `end` if the bytes are no block.
 */
function expandBlock(
  from: usize,
  end: usize,
  start: usize,
  stride: usize,
  rows: i32,
  node: u32,
): usize {
  let at = from;
  let protocol: u64 = 0;
  let user: u64 = 0;
  let distance: u64 = 0;
  let time: u64 = 0;
  let first: u32 = u32.MAX_VALUE;
  let last: u32 = 0;
  let protocols: u64 = 0;
  let users: u64 = 0;
  let subscriptions: u64 = 0;
  let ups: u64 = 0;
  let downs: u64 = 0;
  for (let place = start; place < start + ((<usize>rows) << 2); place += 4) {
    at = readFields(at, end);
    protocol += difference(FIELDS);
    user += difference(FIELDS + 8);
    distance += difference(FIELDS + 16);
    const subscription = user + distance;
    const up = load<u64>(FIELDS + 24);
    const down = load<u64>(FIELDS + 32);
    time += difference(FIELDS + 40);
    if (at > end || time > <u64>u32.MAX_VALUE) return end + 1;
    store<u32>(place, node);
    store<u32>(place + stride * PROTOCOL, <u32>protocol);
    store<u32>(place + stride * (PROTOCOL + 1), <u32>(protocol >> 32));
    store<u32>(place + stride * USER, <u32>user);
    store<u32>(place + stride * (USER + 1), <u32>(user >> 32));
    store<u32>(place + stride * SUBSCRIPTION, <u32>subscription);
    store<u32>(place + stride * (SUBSCRIPTION + 1), <u32>(subscription >> 32));
    store<u32>(place + stride * UP, <u32>up);
    store<u32>(place + stride * (UP + 1), <u32>(up >> 32));
    store<u32>(place + stride * DOWN, <u32>down);
    store<u32>(place + stride * (DOWN + 1), <u32>(down >> 32));
    store<u32>(place + stride * TIME, <u32>time);
    protocols |= protocol;
    users |= user;
    subscriptions |= subscription;
    ups |= up;
    downs |= down;
    first = min(first, <u32>time);
    last = max(last, <u32>time);
  }
  allProtocols |= protocols;
  allUsers |= users;
  allSubscriptions |= subscriptions;
  allUp |= ups;
  allDown |= downs;
  earliest = min(earliest, first);
  latest = max(latest, last);
  return at;
}

/**
 * Which columns of the last expandColumns need 64 bits: a bit each for protocol, user, subscription, up and
 * down, from the lowest bit on.
 */
export function wideColumns(): i32 {
  return (
    <i32>(allProtocols > u32.MAX_VALUE) |
    ((<i32>(allUsers > u32.MAX_VALUE)) << 1) |
    ((<i32>(allSubscriptions > u32.MAX_VALUE)) << 2) |
    ((<i32>(allUp > u32.MAX_VALUE)) << 3) |
    ((<i32>(allDown > u32.MAX_VALUE)) << 4)
  );
}

/** In seconds since 1970, of the rows of the last expandColumns. */
export function earliestTime(): u32 {
  return earliest;
}

export function latestTime(): u32 {
  return latest;
}

/** The smallest and the largest subscription that findRange found last. */
let least: u64 = 0;
let largest: u64 = 0;

function findRange(lower: usize, upper: usize, rows: i32): void {
  let low = u64.MAX_VALUE;
  let high: u64 = 0;
  for (let row: usize = 0; row < (<usize>rows) << 2; row += 4) {
    const value = <u64>load<u32>(lower + row) | ((<u64>load<u32>(upper + row)) << 32);
    low = min(low, value);
    high = max(high, value);
  }
  least = low;
  largest = high;
}

function bitsOf(value: u64): u32 {
  return 64 - <u32>clz(value);
}

/**
 * A radix sort of `count` pairs by the lower `bits` of their keys. A pair has the row's number in its
 * lower 32 bits and the sort key in its upper ones. The least significant digit comes first, so pairs
 * with equal keys keep their order.
 * @returns where the sorted pairs lie: `pairs` or `spare`.
 */
function sortPairs(pairs: usize, spare: usize, count: i32, bits: u32): usize {
  if (bits == 0) return pairs;
  const passes = (bits + DIGIT_BITS_MAX - 1) / DIGIT_BITS_MAX;
  const digitBits = (bits + passes - 1) / passes;
  const digits = COUNTS + ((<usize>4) << digitBits);
  const mask: u64 = ((<u64>1) << digitBits) - 1;
  const bytes = (<usize>count) << 3;
  let from = pairs;
  let into = spare;
  for (let pass: u32 = 0; pass < passes; pass += 1) {
    const shift: u64 = 32 + pass * digitBits;
    memory.fill(COUNTS, 0, digits - COUNTS);
    for (let place = from; place < from + bytes; place += 8) {
      const digit = COUNTS + ((<usize>((load<u64>(place) >> shift) & mask)) << 2);
      store<u32>(digit, load<u32>(digit) + 1);
    }
    // Turns the count of each digit into the place of the digit's next pair.
    let next = into;
    for (let digit = COUNTS; digit < digits; digit += 4) {
      const found = <usize>load<u32>(digit);
      store<u32>(digit, <u32>next);
      next += found << 3;
    }
    for (let place = from; place < from + bytes; place += 8) {
      const pair = load<u64>(place);
      const digit = COUNTS + ((<usize>((pair >> shift) & mask)) << 2);
      const target = <usize>load<u32>(digit);
      store<u64>(target, pair);
      store<u32>(digit, <u32>(target + 8));
    }
    const sorted = into;
    into = from;
    from = sorted;
  }
  return from;
}

/** Makes the values of a column the sort keys of the pairs. */
function setKeys(pairs: usize, count: i32, values: usize): void {
  for (let place = pairs; place < pairs + ((<usize>count) << 3); place += 8) {
    store<u32>(place + 4, load<u32>(values + ((<usize>load<u32>(place)) << 2)));
  }
}

/**
 * Sorts rows by subscription and time; rows with equal keys keep their order. It takes the `count`
 * rows whose numbers lie at `selection`, or the first `count` rows if `selection` is 0.
 *
 * If the ranges of subscriptions and times fit in 32 bits together, both make one key. They do in a
 * segment of an hour and a million subscriptions. Otherwise it sorts by the time, then by each half
 * of the subscription.
 * @returns where the sorted pairs lie in `work`, which takes 16 bytes for each row.
 */
export function sortColumns(
  columns: usize,
  rows: i32,
  selection: usize,
  count: i32,
  work: usize,
): usize {
  const ids = column(columns, rows, SUBSCRIPTION);
  const idsUpper = column(columns, rows, SUBSCRIPTION + 1);
  const times = column(columns, rows, TIME);
  const timeBits = bitsOf(latest - earliest);
  findRange(ids, idsUpper, rows);
  const idLeast = <u32>least;
  const bits = bitsOf(largest - least) + timeBits;
  for (let place: usize = 0; place < <usize>count; place += 1) {
    const row = selection == 0 ? place : <usize>load<u32>(selection + (place << 2));
    const id = load<u32>(ids + (row << 2)) - idLeast;
    const time = load<u32>(times + (row << 2)) - earliest;
    store<u64>(work + (place << 3), ((<u64>((id << timeBits) | time)) << 32) | <u64>row);
  }
  const spare = work + ((<usize>count) << 3);
  if (bits <= 32) return sortPairs(work, spare, count, bits);
  let sorted = work;
  for (let key = 0; key < 3; key += 1) {
    setKeys(sorted, count, key == 0 ? times : key == 1 ? ids : idsUpper);
    sorted = sortPairs(sorted, sorted == work ? spare : work, count, 32);
  }
  return sorted;
}

/**
 * Writes a column to `output` in the order of the pairs. If `wide`, each value has 64 bits: the next
 * column holds the upper halves.
 */
export function writeColumn(
  columns: usize,
  rows: i32,
  index: usize,
  wide: bool,
  pairs: usize,
  count: i32,
  output: usize,
): void {
  const lower = column(columns, rows, index);
  const upper = column(columns, rows, index + 1);
  for (let place: usize = 0; place < <usize>count; place += 1) {
    const row = (<usize>load<u32>(pairs + (place << 3))) << 2;
    if (wide) {
      store<u32>(output + (place << 3), load<u32>(lower + row));
      store<u32>(output + (place << 3) + 4, load<u32>(upper + row));
    } else {
      store<u32>(output + (place << 2), load<u32>(lower + row));
    }
  }
}
