/** Memory that is used again: of its own for each use it would be most of what V8 has to collect. */
export interface BufferPool {
  /**
   * A buffer of at least this many bytes, with whatever was in it before, alone in its ArrayBuffer.
   */
  take(bytes: number): Buffer;
  /**
   * Takes back what `take` gave, or a view of it, once nobody reads it any more: from here on another
   * user may write to it. What is not given back is collected as any other memory.
   */
  give(buffer: Buffer): void;
}

const bytesMin = 4_096;

/**
 * A free list a power of two. Buffers of more than `bytesMax` are rare and not kept, and no more than
 * `keptBytesMax` is kept in all.
 */
export function createBufferPool(limits: { bytesMax: number; keptBytesMax: number }): BufferPool {
  const { bytesMax, keptBytesMax } = limits;
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
      const whole = Buffer.from(buffer.buffer as ArrayBuffer);
      if (whole.length > bytesMax || keptBytes + whole.length > keptBytesMax) return;
      const list = free.get(whole.length);
      if (list === undefined) free.set(whole.length, [whole]);
      else list.push(whole);
      keptBytes += whole.length;
    },
  };
}
