import type { Copyable } from '../../src/rows/wasm.ts';

/** A result in memory of its own. It can be taken once. */
export function copyOf(bytes: Copyable): Buffer {
  const copied = Buffer.alloc(bytes.length);
  bytes.copy(copied, 0);
  return copied;
}
