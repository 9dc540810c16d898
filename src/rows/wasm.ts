import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { limits } from '../contract/limits.ts';
import { projectRoot } from '../root.ts';
import { usageRow } from './pack.ts';

/**
 * Every call of dist/ingest.wasm, which the build compiles from assembly/.
 *
 * The module works in one memory, which the next call overwrites, and a view of that memory dies when
 * it grows. Therefore no view leaves this file. Each function copies its arguments into the memory,
 * calls the module, and copies the result out, to new memory or to the caller's. Only scanUsage lends
 * its result (`Lent`), and the next call saves it. Nothing here awaits.
 *
 * The memory grows to what the largest call needed and stays. CORE_BODY_BYTES_MAX bounds a body, and
 * spool/stream-entries.ts bounds a segment.
 */

/** What the files in assembly/ export. Addresses and lengths are in bytes. */
interface WasmExports {
  scanUsage(
    input: number,
    length: number,
    output: number,
    entriesMax: number,
    nodeId: number,
    earliestMs: number,
    latestMs: number,
  ): number;
  fingerprint(input: number, length: number): bigint;
  compactUsage(input: number, rows: number, output: number): number;
  oldestCompacted(): number;
  expandColumns(input: number, length: number, columns: number, rows: number): number;
  wideColumns(): number;
  earliestTime(): number;
  latestTime(): number;
  sortColumns(
    columns: number,
    rows: number,
    selection: number,
    count: number,
    work: number,
  ): number;
  writeColumn(
    columns: number,
    rows: number,
    index: number,
    wide: number,
    pairs: number,
    count: number,
    output: number,
  ): void;
  sumRows(
    ids: number,
    up: number,
    down: number,
    idWidth: number,
    upWidth: number,
    downWidth: number,
    rows: number,
    output: number,
  ): number;
  countedRows(): number;
  mergeSums(
    one: number,
    oneCount: number,
    other: number,
    otherCount: number,
    otherCapacity: number,
    output: number,
  ): number;
}

interface Wasm {
  exports: WasmExports;
  memory: WebAssembly.Memory;
  /** All of the memory. */
  bytes: Buffer;
}

const pageBytes = 65_536;
const pagesFirst = 32;
/** The first page holds the module's own constants. */
const inputStart = pageBytes;

let loaded: Wasm | undefined;
/** Counts the uses of the memory. What a call left there is valid while this stays the same. */
let uses = 0;

/** The module with at least `bytesMin` bytes of memory. What lay below that stays. */
function use(bytesMin: number): Wasm {
  loaded ??= load();
  uses += 1;
  if (lent !== undefined) {
    lent.moveOut(loaded);
    lent = undefined;
  }
  const missing = bytesMin - loaded.bytes.length;
  if (missing > 0) {
    loaded.memory.grow(Math.ceil(missing / pageBytes));
    loaded.bytes = Buffer.from(loaded.memory.buffer);
  }
  return loaded;
}

function load(): Wasm {
  const memory = new WebAssembly.Memory({ initial: pagesFirst });
  const code = readFileSync(path.join(projectRoot, 'dist', 'ingest.wasm'));
  const instance = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory } });
  const exports = instance.exports as unknown as WasmExports;
  return { exports, memory, bytes: Buffer.from(memory.buffer) };
}

function copyOut({ bytes }: Wasm, at: number, length: number): Buffer {
  const copied = Buffer.allocUnsafe(length);
  bytes.copy(copied, 0, at, at + length);
  return copied;
}

/** Bytes that the caller copies to their place, once. A Buffer is Copyable, too. */
export interface Copyable {
  readonly length: number;
  copy(target: Uint8Array, targetStart: number): number;
}

/** The result that still lies in the module's memory. */
let lent: Lent | undefined;

/**
 * A result that the caller copies straight out of the module's memory. It nearly always does so
 * before the next call, and a second copy would cost accept 3 to 5 % of its time. Otherwise the next
 * call first moves the result to new memory. It is a class, because each post makes one.
 */
class Lent implements Copyable {
  readonly length: number;
  private readonly at: number;
  private moved: Buffer | undefined;

  constructor(at: number, length: number) {
    this.at = at;
    this.length = length;
  }

  copy(target: Uint8Array, targetStart: number): number {
    if (this.moved !== undefined) return this.moved.copy(target, targetStart);
    assert(lent === this && loaded !== undefined, 'a result is copied only once');
    lent = undefined;
    return loaded.bytes.copy(target, targetStart, this.at, this.at + this.length);
  }

  moveOut(wasm: Wasm): void {
    this.moved = copyOut(wasm, this.at, this.length);
  }
}

/** WebAssembly returns numbers of 32 bits as signed ones. */
function unsigned(value: number): number {
  return value >>> 0;
}

// Bodies of usage (assembly/usage.ts, assembly/fingerprint.ts, assembly/compact.ts).

/** Usage rows in their short form for Redis. */
interface CompactRows<B extends Copyable> {
  bytes: B;
  /** Seconds since 1970 of the oldest row; infinite if there is none. */
  oldestSeconds: number;
}

export interface ScannedUsage extends CompactRows<Copyable> {
  rows: number;
  /** What fingerprintOf gives for the body. */
  fingerprint: bigint;
}

/** Zeros behind a body. They end what the scanner reads there. */
const padding = Buffer.alloc(16);
/** Most that a compact block takes for its head, and for each row. */
const compactHeadBytesMax = 15;
const compactRowBytesMax = 60;

/**
 * Turns a usage body into compact rows without a JavaScript object for each entry, some fifteen times
 * as fast as JSON.parse and zod. The rows are exactly those that zod and packUsage would give.
 * Undefined if the scanner is not certain of the body: the caller then asks zod, which takes the body
 * or says what is wrong.
 */
export function scanUsage(
  nodeId: number,
  body: Uint8Array,
  bounds: { entriesMax: number; nowMs: number },
): ScannedUsage | undefined {
  const packedAt = inputStart + body.length + padding.length;
  // A row is shorter than the shortest entry that makes it, so all rows fit in the length of the
  // body. The scanner begins one more row before it finds that an entry is wrong.
  const { exports, bytes } = use(packedAt + body.length + usageRow.length);
  bytes.set(body, inputStart);
  bytes.set(padding, inputStart + body.length);
  const rows = exports.scanUsage(
    inputStart,
    body.length,
    packedAt,
    bounds.entriesMax,
    nodeId,
    limits.earliestMs,
    bounds.nowMs + limits.aheadMsMax,
  );
  if (rows < 0) return undefined;
  const packedEnd = packedAt + rows * usageRow.length;
  const fingerprint = exports.fingerprint(inputStart, body.length);
  const { length, oldestSeconds } = compactAt(packedAt, rows, packedEnd);
  lent = new Lent(packedEnd, length);
  return { rows, bytes: lent, oldestSeconds, fingerprint };
}

/**
 * Tells a body from all others of its node: 64 bits of MurmurHash3, as a signed number. Core compares a
 * body with those of its node and six hours. If 10,000 nodes send one a minute, two of them have the same
 * fingerprint by chance once in some twenty million years. It is no proof against a node that looks for two
 * such bodies: Core takes the second one for a copy of the first, so that node loses what it reported
 * itself.
 */
export function fingerprintOf(body: Uint8Array): bigint {
  const { exports, bytes } = use(inputStart + body.length);
  bytes.set(body, inputStart);
  return exports.fingerprint(inputStart, body.length);
}

/** Packed usage rows, all of one node, as one compact block. */
export function compactUsage(packed: Uint8Array): CompactRows<Buffer> {
  const end = inputStart + packed.length;
  const wasm = use(end);
  wasm.bytes.set(packed, inputStart);
  const { length, oldestSeconds } = compactAt(inputStart, packed.length / usageRow.length, end);
  return { bytes: copyOut(wasm, end, length), oldestSeconds };
}

function compactAt(input: number, rows: number, output: number) {
  if (rows === 0) return { length: 0, oldestSeconds: Number.POSITIVE_INFINITY };
  const { exports } = use(output + compactHeadBytesMax + rows * compactRowBytesMax);
  const length = exports.compactUsage(input, rows, output);
  return { length, oldestSeconds: unsigned(exports.oldestCompacted()) };
}

// Usage rows by column (assembly/columns.ts).

/**
 * Columns of 32 bits that the module expands rows to. A number of 64 bits has two, the lower half first.
 */
const halfColumns = 12;
const timeColumn = halfColumns - 1;
/** The sort needs two pairs of 32-bit numbers for each row: one to read and one to write. */
const pairBytes = 16;

/** The rows of compact blocks, by column. */
export interface UsageColumns {
  /** Which columns need 64 bits: the bits of wideColumns() in assembly/columns.ts. */
  wide: number;
  earliestSeconds: number;
  latestSeconds: number;
  /** Seconds since 1970 of each row. */
  times(): Uint32Array;
  /** One of the twelve columns of 32 bits. */
  half(column: number): Uint32Array;
  /**
   * Sorts the rows by subscription and time, and writes columns of them to `target` in that order. If
   * `selection` is given, it takes only the rows with these numbers.
   */
  writeSorted(
    selection: Uint32Array | undefined,
    columns: readonly ColumnPlace[],
    target: Buffer,
  ): void;
}

/** A column to write: which half column is its lower half, and where it goes in the target. */
interface ColumnPlace {
  half: number;
  /** Whether to write each value with its upper half. */
  isWide: boolean;
  at: number;
}

/**
 * Expands compact blocks to columns, which stay in the module's memory. If another call has used that
 * memory meanwhile, a method expands the blocks again. Undefined if the blocks are not exactly this
 * many rows.
 */
export function openUsageColumns(blocks: Uint8Array, rows: number): UsageColumns | undefined {
  const at = columnPlaces(blocks.length, rows);
  let ownUse = 0;
  const expand = (): boolean => {
    const { exports, bytes } = use(at.end);
    ownUse = uses;
    bytes.set(blocks, inputStart);
    return exports.expandColumns(inputStart, blocks.length, at.columns, rows) === rows;
  };
  const expanded = (): Wasm => {
    if (ownUse !== uses) assert(expand(), 'nobody changes blocks that are open');
    return loaded as Wasm;
  };
  if (!expand()) return undefined;
  const { exports } = expanded();
  const half = (column: number): Uint32Array => {
    const { bytes } = expanded();
    return new Uint32Array(bytes.buffer, at.columns + column * rows * 4, rows).slice();
  };
  return {
    wide: exports.wideColumns(),
    earliestSeconds: unsigned(exports.earliestTime()),
    latestSeconds: unsigned(exports.latestTime()),
    times: () => half(timeColumn),
    half,
    writeSorted(selection, columns, target) {
      const { bytes } = expanded();
      const count = selection?.length ?? rows;
      if (selection !== undefined) new Uint32Array(bytes.buffer, at.selection).set(selection);
      const selected = selection === undefined ? 0 : at.selection;
      const sorted = exports.sortColumns(at.columns, rows, selected, count, at.pairs);
      for (const { half, isWide, at: place } of columns) {
        exports.writeColumn(at.columns, rows, half, isWide ? 1 : 0, sorted, count, at.output);
        bytes.copy(target, place, at.output, at.output + count * (isWide ? 8 : 4));
      }
    },
  };
}

/**
 * Addresses: the columns, the numbers of the rows that are taken, room for pairs, and one sorted column.
 */
function columnPlaces(blocksBytes: number, rows: number) {
  // Aligned for views of words. The module reads up to seven bytes past the input.
  const columns = Math.ceil((inputStart + blocksBytes) / 8) * 8 + 8;
  const selection = columns + rows * halfColumns * 4;
  const pairs = selection + rows * 4 + ((rows * 4) % 8);
  const output = pairs + rows * pairBytes;
  return { columns, selection, pairs, output, end: output + rows * 8 };
}

// Sums of usage by subscription (assembly/sums.ts).

/** Numbers of 4 or 8 bytes each, little endian. */
interface NumberColumn {
  bytes: Uint8Array;
  width: 4 | 8;
}

/** Rows sorted by subscription. */
interface SortedUsage {
  rows: number;
  subscriptionIds: NumberColumn;
  bytesUp: NumberColumn;
  bytesDown: NumberColumn;
}

/** Subscription, bytes up, bytes down and rows: the columns of a list of sums, in ascending order of id. */
export type SumColumns = readonly [BigUint64Array, BigUint64Array, BigUint64Array, BigUint64Array];
export const sumColumns = 4;
const sumBytes = sumColumns * 8;

/**
 * Sums rows up by subscription and merges the sums into the list `held`. `roomFor` gives the columns
 * for the merged list, which has the given size. They may be those of `held`.
 * @returns how many of the rows have a subscription.
 */
export function mergeUsage(
  given: SortedUsage,
  held: SumColumns,
  roomFor: (size: number) => SumColumns,
): number {
  const { rows, subscriptionIds: ids, bytesUp: up, bytesDown: down } = given;
  const heldSize = held[0].length;
  const at = sumPlaces(rows, heldSize);
  const { exports, bytes } = use(at.end);
  bytes.set(ids.bytes, at.ids);
  bytes.set(up.bytes, at.up);
  bytes.set(down.bytes, at.down);
  const words = new BigUint64Array(bytes.buffer);
  for (const [index, column] of held.entries()) words.set(column, at.held / 8 + index * heldSize);
  const widths = [ids.width, up.width, down.width] as const;
  const added = exports.sumRows(at.ids, at.up, at.down, ...widths, rows, at.added);
  const size = exports.mergeSums(at.held, heldSize, at.added, added, rows, at.merged);
  const mergedRoom = heldSize + added;
  for (const [index, column] of roomFor(size).entries()) {
    const start = at.merged / 8 + index * mergedRoom;
    column.set(words.subarray(start, start + size));
  }
  return exports.countedRows();
}

/**
 * Addresses, all aligned to eight bytes: three columns of the rows, their sums, the held sums, and the
 * merged ones.
 */
function sumPlaces(rows: number, heldSize: number) {
  const [ids, up, down] = [inputStart, inputStart + rows * 8, inputStart + rows * 16];
  const added = inputStart + rows * 24;
  const held = added + rows * sumBytes;
  const merged = held + heldSize * sumBytes;
  return { ids, up, down, added, held, merged, end: merged + (heldSize + rows) * sumBytes };
}
