import { limits } from '../contract/limits.ts';
import { ingestModule, inputStart } from '../rows/module.ts';
import { usageRow } from '../rows/pack.ts';
import { fingerprintAt } from './fingerprint.ts';

/** Packed rows of one body. */
export interface Packed {
  rows: number;
  bytes: Buffer;
}

/** Its `bytes` are a view of the WebAssembly's memory, and good until something else uses that. */
export interface Scanned extends Packed {
  /** As `fingerprintOf` has it, while the body lies there. */
  fingerprint: string;
}

/** The fast way from the bytes of a usage body to its rows. */
export interface UsageScanner {
  /**
   * The rows, exactly as zod and packUsage would give them, or undefined where the scanner is not
   * certain of the body: then the caller must ask zod, which takes it or explains.
   */
  scan(nodeId: number, body: Uint8Array): Scanned | undefined;
}

/** Zeros behind the body, which end whatever the scanner reads there. */
const padding = new Uint8Array(16);

/** Its memory grows to twice the largest body seen and stays; CORE_BODY_BYTES_MAX bounds a body. */
export function createUsageScanner(options: {
  entriesMax: number;
  nowMs: () => number;
}): UsageScanner {
  const { exports, memory } = ingestModule();
  return {
    scan(nodeId, body) {
      const output = inputStart + body.length + padding.length;
      // A row is shorter than the shortest entry that makes it, so the rows need no more than the
      // body; one more is begun before an entry is found wanting, and the fingerprint is shorter than
      // that one, so the memory does not move under the view that is returned.
      const bytes = memory(output + body.length + usageRow.length);
      bytes.set(body, inputStart);
      bytes.set(padding, inputStart + body.length);
      const rows = exports.scanUsage(
        inputStart,
        body.length,
        output,
        options.entriesMax,
        nodeId,
        limits.earliestMs,
        options.nowMs() + limits.aheadMsMax,
      );
      if (rows < 0) return undefined;
      const length = rows * usageRow.length;
      const fingerprint = fingerprintAt(inputStart, body.length, output + length);
      return { rows, bytes: Buffer.from(bytes.buffer, output, length), fingerprint };
    },
  };
}
