import { ingestModule, inputStart, isInModule } from './ingest-module.ts';
import { usageRow } from './pack.ts';

/**
 * Usage rows as they lie in the spool (assembly/compact.ts): a third of what they take packed, which
 * Redis copies several times, writes to its log and holds until they are settled.
 */

/** Most that a block takes besides its rows, and for each row. */
const headBytesMax = 15;
const rowBytesMax = 60;

/**
 * The rows of one request, packed, all of one node and at least one, as a block. What is returned is
 * a view of memory that the next call uses again; so may `packed` be, as it comes from the scanner,
 * and then nothing is copied.
 */
export function compactUsage(packed: Uint8Array): Buffer {
  const { exports, memory } = ingestModule();
  const rows = packed.length / usageRow.length;
  const inPlace = isInModule(packed);
  const input = inPlace ? packed.byteOffset : inputStart;
  const output = input + packed.length;
  const bytes = memory(output + headBytesMax + rows * rowBytesMax);
  if (!inPlace) bytes.set(packed, input);
  const length = exports.compactUsage(input, rows, output);
  return Buffer.from(bytes.buffer, output, length);
}

/**
 * Writes the rows of blocks, one after another, to `into` as they were packed. False where the bytes
 * are not exactly blocks of so many rows; `into` is then as it was.
 */
export function expandUsage(blocks: Uint8Array, rows: number, into: Uint8Array): boolean {
  const { exports, memory } = ingestModule();
  const output = inputStart + blocks.length;
  const length = rows * usageRow.length;
  const bytes = memory(output + length);
  bytes.set(blocks, inputStart);
  if (exports.expandUsage(inputStart, blocks.length, output, rows) !== rows) return false;
  into.set(bytes.subarray(output, output + length));
  return true;
}
