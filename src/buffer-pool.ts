/** Reuses memory. Fresh memory for each use would be most of what V8 has to collect. */
export interface BufferPool {
  /** A buffer of at least this many bytes, with old content, alone in its ArrayBuffer. */
  take(bytes: number): Buffer;
  /**
   * Gives back a buffer of `take`, or a view of it. Nobody may read it after that, because another user may
   * write to it. V8 collects a buffer that is never given back, like any other memory.
   */
  give(buffer: Buffer): void;
}

const bytesMin = 4_096;

/**
 * One free list per power of two. Buffers over `bytesMax` are rare and not kept, and at most `keptBytesMax`
 * are kept in all.
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
