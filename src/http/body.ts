import type { HttpResponse } from 'uWebSockets.js';
import type { BufferPool } from '../buffer-pool.ts';
import { CoreError } from '../errors.ts';

/**
 * Core reads a body that is over its bound to its end, so that the client can read the answer. Past
 * this many times the bound, Core closes the connection instead.
 */
const drainFactor = 4;

/**
 * A chunked body may have this many chunks, and one more per `chunkBytesMin` of its bytes. Each chunk
 * is a call into JavaScript: a megabyte in chunks of one byte would hold the process for 0.2 s.
 */
const chunksMin = 1_024;
const chunkBytesMin = 64;

export interface BodyReader {
  /** Called once. The body is valid until this returns; copy it to keep it. */
  bodyEnded(result: BodyResult): void;
}

export type BodyResult =
  | { outcome: 'complete'; body: Uint8Array }
  | { outcome: 'too-large'; drained: boolean }
  | { outcome: 'too-slow' }
  /** Too many chunks that are too small. */
  | { outcome: 'fragmented' }
  | { outcome: 'aborted' };

/**
 * The largest body that Core reads to its end although it has refused the request. The client can
 * then read the answer and use the connection again. If more may come, Core closes the connection.
 */
export const discardBytesMax = 65_536;

/**
 * Collects a body. Create it before the first await of a handler, or chunks are lost.
 * `declaredBytes` is undefined for a chunked body, whose end shows only when it arrives. The body is
 * collected in one buffer, of the declared size or growing. `release` gives it back.
 *
 * uWebSockets takes the memory of a chunk back when its callback returns, so each chunk is copied.
 * The exception is a body that arrives in one chunk while a reader waits: the reader gets that memory.
 */
export class BodyReading implements Expiring {
  before: Expiring | undefined;
  after: Expiring | undefined;
  addedAt = -1;
  private readonly declaredBytes: number | undefined;
  private readonly bytesMax: number;
  private readonly buffers: BufferPool;
  private readonly deadlines: Deadlines;
  private buffer: Buffer | undefined;
  private chunksTaken = 0;
  private bytes = 0;
  private isDropped = false;
  private ended: BodyResult | undefined;
  private reader: BodyReader | undefined;

  constructor(
    response: HttpResponse,
    bounds: { bytesMax: number; declaredBytes: number | undefined },
    shared: { buffers: BufferPool; deadlines: Deadlines },
  ) {
    this.declaredBytes = bounds.declaredBytes;
    this.bytesMax = bounds.bytesMax;
    this.buffers = shared.buffers;
    this.deadlines = shared.deadlines;
    const { declaredBytes = 1 } = bounds;
    if (declaredBytes > bounds.bytesMax * drainFactor) {
      this.ended = { outcome: 'too-large', drained: false };
    } else if (declaredBytes === 0) {
      // uWebSockets never calls onData for `Content-Length: 0` if the head came in several packets.
      this.ended = { outcome: 'complete', body: noBody };
    } else {
      // The time starts at the end of the headers: a client that sends no byte at all is slow, too.
      this.deadlines.add(this);
      response.onData((chunk, isLast) => this.take(chunk, isLast));
    }
  }

  /** Calls `reader` when the body has ended; at once if it has ended already. */
  whenEnded(reader: BodyReader): void {
    if (this.ended === undefined) this.reader = reader;
    else reader.bodyEnded(this.ended);
  }

  /** How the body ended, with a copy of it. Never rejects. */
  result(): Promise<BodyResult> {
    return new Promise((resolve) => {
      this.whenEnded({
        bodyEnded(result) {
          if (result.outcome === 'complete') resolve({ ...result, body: Buffer.from(result.body) });
          else resolve(result);
        },
      });
    });
  }

  /** The client has gone away, so nothing more will come. */
  abort(): void {
    this.end({ outcome: 'aborted' });
  }

  /** The time limit for a body is over. */
  expire(): void {
    this.end({ outcome: 'too-slow' });
  }

  /**
   * Call it when nobody needs the body any more. Its memory goes to other requests, and what is still
   * to come is read within the same bounds but not kept.
   */
  release(): void {
    this.isDropped = true;
    if (this.buffer !== undefined) this.buffers.give(this.buffer);
    this.buffer = undefined;
  }

  private take(chunk: ArrayBuffer, isLast: boolean): void {
    if (this.ended?.outcome === 'fragmented') return;
    const isWhole = isLast && this.bytes === 0;
    this.bytes += chunk.byteLength;
    this.chunksTaken += 1;
    const isFragmented = this.chunksTaken > chunksMin + this.bytes / chunkBytesMin;
    if (isFragmented && this.declaredBytes === undefined) {
      this.release();
      this.end({ outcome: 'fragmented' });
      return;
    }
    if (this.bytes > this.bytesMax) {
      this.release();
      if (isLast) this.end({ outcome: 'too-large', drained: true });
      else if (this.bytes > this.bytesMax * drainFactor) {
        this.end({ outcome: 'too-large', drained: false });
      }
      return;
    }
    if (isWhole && this.reader !== undefined && !this.isDropped) {
      this.end({ outcome: 'complete', body: new Uint8Array(chunk) });
      return;
    }
    this.keep(chunk);
    if (isLast) this.end({ outcome: 'complete', body: this.kept() });
  }

  private keep(chunk: ArrayBuffer): void {
    if (this.isDropped) return;
    const start = this.bytes - chunk.byteLength;
    this.room(start).set(new Uint8Array(chunk), start);
  }

  /** The buffer, with room for all bytes that have come. It holds `heldBytes` of them so far. */
  private room(heldBytes: number): Buffer {
    const { buffer, bytesMax, declaredBytes = 0 } = this;
    if (buffer !== undefined && buffer.length >= this.bytes) return buffer;
    // Taken only now, so that a client that declares a body and never sends it costs no memory.
    const wanted = buffer === undefined ? declaredBytes : 2 * buffer.length;
    const larger = this.buffers.take(Math.max(this.bytes, Math.min(wanted, bytesMax)));
    if (buffer !== undefined) {
      buffer.copy(larger, 0, 0, heldBytes);
      this.buffers.give(buffer);
    }
    this.buffer = larger;
    return larger;
  }

  private kept(): Buffer {
    return this.buffer === undefined ? noBody : this.buffer.subarray(0, this.bytes);
  }

  private end(result: BodyResult): void {
    if (this.ended !== undefined) return;
    this.ended = result;
    this.deadlines.delete(this);
    const { reader } = this;
    this.reader = undefined;
    reader?.bodyEnded(result);
  }
}

export const noBody = Buffer.alloc(0);

/** @throws CoreError BODY_TOO_LARGE or MALFORMED_BODY if the body is not complete. */
export function wholeBody(received: BodyResult, bytesMax: number): Uint8Array {
  if (received.outcome === 'complete') return received.body;
  if (received.outcome === 'too-large') throw tooLarge(bytesMax);
  if (received.outcome === 'fragmented') {
    throw new CoreError('MALFORMED_BODY', 'The body comes in too many chunks that are too small');
  }
  throw new CoreError('MALFORMED_BODY', 'The body did not arrive in time');
}

export function tooLarge(bytesMax: number, cause?: unknown): CoreError {
  return new CoreError('BODY_TOO_LARGE', `The body is over ${bytesMax} bytes`, { cause });
}

/** Whether bytes of the body are still to come. If so, the connection cannot be used again. */
export function isUnread(received: BodyResult): boolean {
  if (received.outcome === 'too-large') return !received.drained;
  return received.outcome !== 'complete';
}

/** What must end in time. `before`, `after` and `addedAt` belong to the list that holds it. */
interface Expiring {
  expire(): void;
  before: Expiring | undefined;
  after: Expiring | undefined;
  /** The tick at which it was added; -1 while it is in no list. */
  addedAt: number;
}

/**
 * One time limit for many items. An item that is still in the list after the limit expires: at most a
 * quarter of the limit late, and never more than a second. The items themselves link the list. Most
 * bodies arrive at once, so a timer for each would cost more than all other work for them. A Map
 * would allocate again every few items.
 */
export interface Deadlines {
  add(item: Expiring): void;
  /** Does nothing if the item is no longer in the list. */
  delete(item: Expiring): void;
  close(): void;
}

/** Checks per time limit. A limit of more than four seconds gets one check a second. */
const ticksPerLimit = 4;
const tickMsMax = 1_000;

export function createDeadlines(secondsMax: number): Deadlines {
  const tickMs = Math.min(tickMsMax, (secondsMax * 1_000) / ticksPerLimit);
  const ticksMax = Math.ceil((secondsMax * 1_000) / tickMs);
  // The order of adding is the order of the deadlines, since all items have the same limit.
  let oldest: Expiring | undefined;
  let newest: Expiring | undefined;
  let ticks = 0;

  const remove = (item: Expiring): void => {
    if (item.addedAt < 0) return;
    if (item.before === undefined) oldest = item.after;
    else item.before.after = item.after;
    if (item.after === undefined) newest = item.before;
    else item.after.before = item.before;
    item.before = undefined;
    item.after = undefined;
    item.addedAt = -1;
  };
  const timer = setInterval(() => {
    ticks += 1;
    // Items added between ticks get one extra tick.
    while (oldest !== undefined && ticks - oldest.addedAt > ticksMax) {
      const item = oldest;
      remove(item);
      item.expire();
    }
  }, tickMs);
  timer.unref();
  return {
    add(item) {
      item.addedAt = ticks;
      item.before = newest;
      if (newest === undefined) oldest = item;
      else newest.after = item;
      newest = item;
    },
    delete: remove,
    close: () => clearInterval(timer),
  };
}
