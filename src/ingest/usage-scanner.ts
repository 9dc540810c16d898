import { readFileSync } from 'node:fs';
import path from 'node:path';
import { limits } from '../contract/limits.ts';
import { projectRoot } from '../root.ts';
import { usageRow } from './pack.ts';

/** Packed rows of one body. Those of a scanner are a view of its memory, until it scans again. */
export interface Packed {
  rows: number;
  bytes: Buffer;
}

/** The fast way from the bytes of a usage body to its rows. */
export interface UsageScanner {
  /**
   * The rows, exactly as zod and packUsage would give them, or undefined where the scanner is not
   * certain of the body: then the caller must ask zod, which takes it or explains.
   */
  scan(nodeId: number, body: Uint8Array): Packed | undefined;
}

interface ScannerExports {
  scanUsage(
    input: number,
    length: number,
    output: number,
    entriesMax: number,
    nodeId: number,
    earliestMs: number,
    latestMs: number,
  ): number;
}

const pageBytes = 65_536;
/** The first page is the module's own. */
const inputStart = pageBytes;
/** Zeros behind the body, which the scanner's eight-byte reads may touch. */
const padding = new Uint8Array(16);

/**
 * Loads assembly/usage.ts as compiled to dist/usage.wasm by the build. Its memory grows to twice the
 * largest body seen and stays; a body is bounded by CORE_BODY_BYTES_MAX.
 */
export function createUsageScanner(options: {
  entriesMax: number;
  nowMs: () => number;
}): UsageScanner {
  const memory = new WebAssembly.Memory({ initial: 32 });
  const code = readFileSync(path.join(projectRoot, 'dist', 'usage.wasm'));
  const instance = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory } });
  const { scanUsage } = instance.exports as unknown as ScannerExports;
  let bytes = new Uint8Array(memory.buffer);

  return {
    scan(nodeId, body) {
      const output = inputStart + body.length + padding.length;
      // A row is shorter than the shortest entry that makes it, so the rows need no more than the
      // body; one more is begun before an entry is found wanting.
      const end = output + body.length + usageRow.length;
      if (end > bytes.length) {
        memory.grow(Math.ceil((end - bytes.length) / pageBytes));
        bytes = new Uint8Array(memory.buffer);
      }
      bytes.set(body, inputStart);
      bytes.set(padding, inputStart + body.length);
      const rows = scanUsage(
        inputStart,
        body.length,
        output,
        options.entriesMax,
        nodeId,
        limits.earliestMs,
        options.nowMs() + limits.aheadMsMax,
      );
      if (rows < 0) return undefined;
      return { rows, bytes: Buffer.from(bytes.buffer, output, rows * usageRow.length) };
    },
  };
}
