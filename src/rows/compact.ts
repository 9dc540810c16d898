import { oldestSessionSeconds, type PackedRows, usageRow } from './pack.ts';
import { type Copyable, compactUsage } from './wasm.ts';

/** The rows of one post as the spool keeps them: usage compact, other kinds packed. */
export interface SpoolRows {
  rows: number;
  bytes: Copyable;
  /** Seconds since 1970 of the oldest row; infinite if the rows have no time. */
  oldestSeconds: number;
}

/**
 * Compact usage takes a third of its packed length. That counts, because Redis copies each byte
 * several times, writes it to its log, and holds it until it is settled. Sessions and outbound usage
 * are rare, so they stay packed.
 */
export function compact(
  kind: 'usage' | 'session' | 'outbound',
  { rows, bytes }: PackedRows,
): SpoolRows {
  if (kind === 'usage') return { rows, ...compactUsage(bytes) };
  const oldestSeconds = kind === 'session' ? oldestSessionSeconds(bytes) : Number.POSITIVE_INFINITY;
  return { rows, bytes, oldestSeconds };
}

/**
 * Packed usage rows of any nodes as compact blocks. Neighbouring rows of the same node make one
 * block.
 */
export function compactBlocks(packed: Buffer): Buffer {
  const blocks: Buffer[] = [];
  let start = 0;
  for (let at = usageRow.length; at <= packed.length; at += usageRow.length) {
    const nodeId = packed.readUInt32LE(start + usageRow.nodeId);
    if (at < packed.length && packed.readUInt32LE(at + usageRow.nodeId) === nodeId) continue;
    blocks.push(compactUsage(packed.subarray(start, at)).bytes);
    start = at;
  }
  return Buffer.concat(blocks);
}
