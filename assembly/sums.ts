/**
 * Sums usage up by subscription, in ascending order of the ids. AssemblyScript, which scripts/build.mjs
 * compiles to WebAssembly.
 *
 * A list of sums is four columns of 64 bits: subscription, bytes up, bytes down and rows. The columns
 * lie one after the other, each as long as the capacity of the list. A sum past 64 bits stays at the
 * largest number.
 */

/** How many rows of the last sumRows have a subscription. */
let counted: i32 = 0;

export function countedRows(): i32 {
  return counted;
}

/** The value at a place of a column whose numbers have 4 or 8 bytes. */
function valueAt(column: usize, width: usize, place: usize): u64 {
  return width == 8 ? load<u64>(column + (place << 3)) : <u64>load<u32>(column + (place << 2));
}

function sum(one: u64, other: u64): u64 {
  const both = one + other;
  return both < one ? u64.MAX_VALUE : both;
}

/**
 * Sums rows up and writes the list of sums, with a capacity of `rows`, to `output`. The rows must be
 * sorted by subscription and come as columns, whose numbers have the given widths. Rows with the
 * subscription 0 add to no sum.
 * @returns how many subscriptions have a sum.
 */
export function sumRows(
  ids: usize,
  up: usize,
  down: usize,
  idWidth: usize,
  upWidth: usize,
  downWidth: usize,
  rows: i32,
  output: usize,
): i32 {
  const capacity = (<usize>rows) << 3;
  let place: usize = 0;
  while (place < <usize>rows && valueAt(ids, idWidth, place) == 0) place += 1;
  counted = rows - <i32>place;
  let to = output;
  while (place < <usize>rows) {
    const id = valueAt(ids, idWidth, place);
    let bytesUp: u64 = 0;
    let bytesDown: u64 = 0;
    const first = place;
    do {
      bytesUp = sum(bytesUp, valueAt(up, upWidth, place));
      bytesDown = sum(bytesDown, valueAt(down, downWidth, place));
      place += 1;
    } while (place < <usize>rows && valueAt(ids, idWidth, place) == id);
    store<u64>(to, id);
    store<u64>(to + capacity, bytesUp);
    store<u64>(to + capacity * 2, bytesDown);
    store<u64>(to + capacity * 3, <u64>(place - first));
    to += 8;
  }
  return <i32>((to - output) >> 3);
}

/**
 * Merges two lists of sums into a list with a capacity for both, at `output`. The capacity of `one` is its
 * count; `other` has a capacity of its own.
 * @returns how many subscriptions have a sum.
 */
export function mergeSums(
  one: usize,
  oneCount: i32,
  other: usize,
  otherCount: i32,
  otherCapacity: i32,
  output: usize,
): i32 {
  const oneBytes = (<usize>oneCount) << 3;
  const otherBytes = (<usize>otherCapacity) << 3;
  const outputBytes = (<usize>(oneCount + otherCount)) << 3;
  const oneEnd = one + oneBytes;
  const otherEnd = other + ((<usize>otherCount) << 3);
  let a = one;
  let b = other;
  let to = output;
  while (a < oneEnd || b < otherEnd) {
    const idA = a < oneEnd ? load<u64>(a) : u64.MAX_VALUE;
    const idB = b < otherEnd ? load<u64>(b) : u64.MAX_VALUE;
    // u64.MAX_VALUE may also be an id, so it also checks whether the lists have ended.
    const takesA = a < oneEnd && (idA <= idB || b >= otherEnd);
    const takesB = b < otherEnd && (idB <= idA || a >= oneEnd);
    store<u64>(to, takesA ? idA : idB);
    for (let column: usize = 1; column < 4; column += 1) {
      const valueA = takesA ? load<u64>(a + oneBytes * column) : 0;
      const valueB = takesB ? load<u64>(b + otherBytes * column) : 0;
      store<u64>(to + outputBytes * column, sum(valueA, valueB));
    }
    if (takesA) a += 8;
    if (takesB) b += 8;
    to += 8;
  }
  return <i32>((to - output) >> 3);
}
