import { readFileSync } from 'node:fs';
import path from 'node:path';
import { projectRoot } from '../root.ts';

/** What assembly/usage.ts and assembly/compact.ts export. Addresses and lengths are in bytes. */
export interface UsageExports {
  scanUsage(
    input: number,
    length: number,
    output: number,
    entriesMax: number,
    nodeId: number,
    earliestMs: number,
    latestMs: number,
  ): number;
  compactUsage(input: number, rows: number, output: number): number;
  expandUsage(input: number, length: number, output: number, rows: number): number;
}

/** The WebAssembly of usage rows, and its memory. */
export interface UsageModule {
  exports: UsageExports;
  /** All of the memory, which has at least `bytes`. Views from before may be detached by this. */
  memory(bytes: number): Uint8Array;
}

const pageBytes = 65_536;
/** The first page is the module's own. */
export const inputStart = pageBytes;

/**
 * Loads dist/usage.wasm, which the build compiles. Its memory grows to what the largest call needed
 * and stays; bodies and entries of the spool are bounded.
 */
export function loadUsageModule(): UsageModule {
  const memory = new WebAssembly.Memory({ initial: 32 });
  const code = readFileSync(path.join(projectRoot, 'dist', 'usage.wasm'));
  const instance = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory } });
  let bytes = new Uint8Array(memory.buffer);
  return {
    exports: instance.exports as unknown as UsageExports,
    memory(bytesMin) {
      if (bytesMin > bytes.length) {
        memory.grow(Math.ceil((bytesMin - bytes.length) / pageBytes));
        bytes = new Uint8Array(memory.buffer);
      }
      return bytes;
    },
  };
}
