import {
  BYTES_DOWN,
  BYTES_UP,
  NODE_PROTOCOL_ID,
  RECORDED_AT,
  ROW_BYTES,
  SUBSCRIPTION_ID,
  USER_ID,
} from './row';

/**
 * Compacts usage rows for Redis: a packed row (src/rows/pack.ts) takes 56 bytes, a compact one some
 * 17. AssemblyScript, which scripts/build.mjs compiles to WebAssembly.
 *
 * A block holds the rows of one post: their count and the node as varints (LEB128), then six varints
 * for each row. Ids and the time are differences to the row before, in zigzag; the row before the
 * first one is all zeros. The block stores a subscription as its distance from the user, because Core
 * tends to give out both ids together. Byte counts are plain varints. Differences wrap at 64 bits, so
 * expanding restores any row. It does not restore the segment, which the worker writes anyway.
 */

/** Where the next byte goes. */
let at: usize = 0;
/** Time of the oldest row of the last block. */
let oldest: u32 = 0;

function write(value: u64): void {
  while (value > 127) {
    store<u8>(at, <u8>(value | 128));
    value >>= 7;
    at += 1;
  }
  store<u8>(at, <u8>value);
  at += 1;
}

function writeSigned(value: i64): void {
  write(<u64>((value << 1) ^ (value >> 63)));
}

/**
 * Writes the rows at `input`, at least one and all of one node, as a block at `output`. The block takes
 * at most 15 bytes and 60 for each row.
 * @returns its length in bytes.
 */
export function compactUsage(input: usize, rows: i32, output: usize): i32 {
  at = output;
  write(<u64>rows);
  write(<u64>load<u32>(input));
  let protocol: u64 = 0;
  let user: u64 = 0;
  let distance: u64 = 0;
  let time: i64 = 0;
  let oldestTime: i64 = 0xffffffff;
  for (let row = input; row < input + <usize>rows * ROW_BYTES; row += ROW_BYTES) {
    const rowProtocol = load<u64>(row + NODE_PROTOCOL_ID);
    const rowUser = load<u64>(row + USER_ID);
    const rowDistance = load<u64>(row + SUBSCRIPTION_ID) - rowUser;
    const rowTime: i64 = <i64>load<u32>(row + RECORDED_AT);
    writeSigned(<i64>(rowProtocol - protocol));
    writeSigned(<i64>(rowUser - user));
    writeSigned(<i64>(rowDistance - distance));
    write(load<u64>(row + BYTES_UP));
    write(load<u64>(row + BYTES_DOWN));
    writeSigned(rowTime - time);
    oldestTime = min(oldestTime, rowTime);
    protocol = rowProtocol;
    user = rowUser;
    distance = rowDistance;
    time = rowTime;
  }
  oldest = <u32>oldestTime;
  return <i32>(at - output);
}

/** Seconds since 1970 of the oldest row of the last block. */
export function oldestCompacted(): u32 {
  return oldest;
}
