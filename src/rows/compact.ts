import { ingestModule, inputStart, isInModule } from './module.ts';
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

/** Seconds since 1970 of the oldest of the rows that compactUsage was given last. */
export function oldestCompactedSeconds(): number {
  // Numbers of 32 bits come from the module signed.
  return ingestModule().exports.oldestCompacted() >>> 0;
}

/** Rows of any nodes as blocks, one for those of a node that follow one another. */
export function compactRows(packed: Buffer): Buffer {
  const blocks: Buffer[] = [];
  let start = 0;
  for (let at = usageRow.length; at <= packed.length; at += usageRow.length) {
    const nodeId = packed.readUInt32LE(start + usageRow.nodeId);
    if (at < packed.length && packed.readUInt32LE(at + usageRow.nodeId) === nodeId) continue;
    blocks.push(Buffer.from(compactUsage(packed.subarray(start, at))));
    start = at;
  }
  return Buffer.concat(blocks);
}
