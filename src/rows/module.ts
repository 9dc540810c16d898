import { readFileSync } from 'node:fs';
import path from 'node:path';
import { projectRoot } from '../root.ts';

/** What the files in assembly/ export. Addresses and lengths are in bytes. */
export interface IngestExports {
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
  fingerprint(input: number, length: number, output: number): void;
}

/** The WebAssembly that bodies and usage rows go through, and its memory. */
export interface IngestModule {
  exports: IngestExports;
  /** All of the memory, which has at least `bytes`. Views from before may be detached by this. */
  memory(bytes: number): Uint8Array;
  /** How often it has been asked for: what lay there before is good until this changes. */
  uses(): number;
  /** Whether a view is of this memory. */
  holds(view: Uint8Array): boolean;
}

const pageBytes = 65_536;
/** The first page is the module's own. */
export const inputStart = pageBytes;

let shared: IngestModule | undefined;

/**
 * dist/ingest.wasm, which the build compiles, loaded at the first call. One for all that a process
 * does, so that what one step leaves in its memory the next one need not copy: each step is done
 * before anything is awaited. The memory grows to what the largest call needed and stays; bodies and
 * entries of the spool are bounded.
 */
export function ingestModule(): IngestModule {
  shared ??= load();
  return shared;
}

/** Whether `bytes` lie in the module's memory already. */
export function isInModule(bytes: Uint8Array): boolean {
  return ingestModule().holds(bytes);
}

function load(): IngestModule {
  const memory = new WebAssembly.Memory({ initial: 32 });
  const code = readFileSync(path.join(projectRoot, 'dist', 'ingest.wasm'));
  const instance = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory } });
  let bytes = new Uint8Array(memory.buffer);
  let uses = 0;
  return {
    exports: instance.exports as unknown as IngestExports,
    memory(bytesMin) {
      uses += 1;
      if (bytesMin > bytes.length) {
        memory.grow(Math.ceil((bytesMin - bytes.length) / pageBytes));
        bytes = new Uint8Array(memory.buffer);
      }
      return bytes;
    },
    uses: () => uses,
    holds: (view) => view.buffer === memory.buffer,
  };
}
