/** Memory that bodies are collected in, used again from one request to the next. */
export interface BodyBuffers {
  /** A buffer of at least this many bytes, with whatever was in it before. */
  take(bytes: number): Buffer;
  /** Gives it back: from here on another request may write to it. */
  give(buffer: Buffer): void;
}

const bytesMin = 4_096;
/** A larger body is rare, and its memory is better given back. */
const bytesMax = 1_048_576;
/** What is kept for later, in all. */
const keptBytesMax = 16_777_216;

/**
 * A free list a power of two. At a thousand bodies of 64 KiB a second, memory of their own would be
 * most of what the garbage collector has to do.
 */
export function createBodyBuffers(): BodyBuffers {
  const free = new Map<number, Buffer[]>();
  let keptBytes = 0;
  return {
    take(bytes) {
      if (bytes > bytesMax) return Buffer.allocUnsafeSlow(bytes);
      let size = bytesMin;
      while (size < bytes) size *= 2;
      const kept = free.get(size)?.pop();
      if (kept === undefined) return Buffer.allocUnsafeSlow(size);
      keptBytes -= size;
      return kept;
    },
    give(buffer) {
      if (buffer.length > bytesMax || keptBytes + buffer.length > keptBytesMax) return;
      const list = free.get(buffer.length);
      if (list === undefined) free.set(buffer.length, [buffer]);
      else list.push(buffer);
      keptBytes += buffer.length;
    },
  };
}
