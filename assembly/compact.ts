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
 * Usage rows as they lie in the spool, and back: the fixed rows of src/ingest/pack.ts take 56 bytes,
 * these some 17. AssemblyScript, compiled to WebAssembly by scripts/build.mjs.
 *
 * A block is the rows of one request: their count and the node as varints (LEB128), then each row as
 * what differs from the row before, which for the first one is all zeros. Ids and times are
 * differences, zigzag, the subscription as its distance from the user, since the two tend to be
 * given out together; byte counts are plain varints. Differences wrap at 64 bits, so any row comes
 * back as it was; only its segment does not, which the loader stamps anyway.
 */

/** Place of the next byte to write or read. */
let at: usize = 0;
/** First place behind what may be read. */
let end: usize = 0;
/** Whether something was read that no compact block holds. */
let torn: bool = false;

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

function read(): u64 {
  let value: u64 = 0;
  let shift: u64 = 0;
  while (at < end && shift < 70) {
    const byte: u64 = load<u8>(at);
    at += 1;
    value |= (byte & 127) << shift;
    if (byte < 128) return value;
    shift += 7;
  }
  torn = true;
  return 0;
}

function readSigned(): i64 {
  const value = read();
  return <i64>((value >> 1) ^ (0 - (value & 1)));
}

/**
 * Writes the rows at `input`, all of one node, as one block at `output`, which takes up to 15 bytes
 * and 60 a row.
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
    protocol = rowProtocol;
    user = rowUser;
    distance = rowDistance;
    time = rowTime;
  }
  return <i32>(at - output);
}

/**
 * Writes the rows of all blocks at `input`, one after another, to `output`.
 * @returns how many rows, or -1 where they are not `rows` or the bytes are no blocks.
 */
export function expandUsage(input: usize, length: i32, output: usize, rows: i32): i32 {
  at = input;
  end = input + <usize>length;
  torn = false;
  let row = output;
  let left: u64 = <u64>rows;
  while (at < end) {
    const blockRows = read();
    const node = read();
    if (torn || blockRows > left || node > <u64>u32.MAX_VALUE) return -1;
    left -= blockRows;
    let protocol: u64 = 0;
    let user: u64 = 0;
    let distance: u64 = 0;
    let time: i64 = 0;
    for (let count: u64 = 0; count < blockRows; count += 1) {
      protocol += <u64>readSigned();
      user += <u64>readSigned();
      distance += <u64>readSigned();
      store<u32>(row, <u32>node);
      store<u64>(row + NODE_PROTOCOL_ID, protocol);
      store<u64>(row + USER_ID, user);
      store<u64>(row + SUBSCRIPTION_ID, user + distance);
      store<u64>(row + BYTES_UP, read());
      store<u64>(row + BYTES_DOWN, read());
      time += readSigned();
      if (torn || time < 0 || time > <i64>u32.MAX_VALUE) return -1;
      store<u32>(row + RECORDED_AT, <u32>time);
      store<u64>(row + SEGMENT, 0);
      row += ROW_BYTES;
    }
  }
  return left == 0 ? rows : -1;
}
