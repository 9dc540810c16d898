import type { HttpResponse } from 'uWebSockets.js';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import type { BufferPool } from '../buffer-pool.ts';
import { CoreError } from '../errors.ts';
import type { Deadlines, Expiring } from './deadlines.ts';
import type { RequestHeaders } from './route.ts';

const gunzipAsync = promisify(gunzip);

/** A body that is over its bound is still read to its end up to this many times the bound, so that
 * the client can read the answer; past that the connection is closed. */
const drainFactor = 4;

/**
 * A chunked body may come in this many chunks, and in one more for each so many of its bytes. Each chunk
 * is a call, which costs more than a byte: a megabyte in chunks of one byte held a process for 0.2 s.
 */
const chunksMin = 1_024;
const chunkBytesMin = 64;

/** Is told, once, how a body has ended. */
export interface BodyReader {
  /** A body is good until this returns; copy it to keep it. */
  bodyEnded(result: BodyResult): void;
}

export type BodyResult =
  | { outcome: 'complete'; body: Uint8Array }
  | { outcome: 'too-large'; drained: boolean }
  | { outcome: 'too-slow' }
  /** In too many chunks that are too small. */
  | { outcome: 'fragmented' }
  | { outcome: 'aborted' };

/**
 * Largest body that is read to its end although nobody will look at it, so that the client can read
 * the answer and the connection goes on. Where more may come the connection is closed instead.
 */
export const discardBytesMax = 65_536;

/**
 * Collects a body. Must be created before the first await of a handler, or chunks are lost.
 * `declaredBytes` is undefined if the end shows only when it comes (chunked). The body is collected in
 * one buffer, of that size or one that grows. `release` gives it back.
 *
 * The memory of a chunk is taken back when uWebSockets' callback returns, so each is copied, except
 * for one: where a body comes as a whole and somebody waits for it, he is called with that memory.
 */
export class BodyReading implements Expiring {
  before: Expiring | undefined;
  after: Expiring | undefined;
  since = -1;
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
      // Not left to onData: uWebSockets never calls it for `Content-Length: 0` where the head came in
      // more than one packet.
      this.ended = { outcome: 'complete', body: noBody };
    } else {
      // From the end of the headers on: a client that never sends a byte of its body is slow, too.
      this.deadlines.add(this);
      response.onData((chunk, isLast) => this.take(chunk, isLast));
    }
  }

  /** Tells `reader` once all is there, or will not be: at once where that is so by now. */
  tell(reader: BodyReader): void {
    if (this.ended === undefined) this.reader = reader;
    else reader.bodyEnded(this.ended);
  }

  /** The same, with a copy of the body. Never rejects. */
  result(): Promise<BodyResult> {
    return new Promise((resolve) => {
      this.tell({
        bodyEnded(result) {
          if (result.outcome === 'complete') resolve({ ...result, body: Buffer.from(result.body) });
          else resolve(result);
        },
      });
    });
  }

  /** The client has gone away: nothing more will come. */
  abort(): void {
    this.end({ outcome: 'aborted' });
  }

  /** The time for a body is over. */
  expire(): void {
    this.end({ outcome: 'too-slow' });
  }

  /**
   * Nobody looks at the body from here on: its memory is another request's, and what is still to
   * come is read, within the same bounds, and not kept.
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

  /** The buffer, with room for all that has come, of which it holds `heldBytes`. */
  private room(heldBytes: number): Buffer {
    const { buffer, bytesMax, declaredBytes = 0 } = this;
    if (buffer !== undefined && buffer.length >= this.bytes) return buffer;
    // Only now: a client that declares a body and never sends it takes no memory.
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

/**
 * The media type of a POST must be JSON; a body without a Content-Type is taken as JSON.
 * @throws CoreError UNSUPPORTED_MEDIA_TYPE.
 */
export function checkMediaType(headers: RequestHeaders): void {
  if (headers.contentType === 'application/json' && headers.contentEncoding === '') return;
  const mediaType = (headers.contentType.split(';')[0] ?? '').trim().toLowerCase();
  if (mediaType !== '' && mediaType !== 'application/json') {
    throw new CoreError('UNSUPPORTED_MEDIA_TYPE', 'The body must be application/json');
  }
  const encoding = headers.contentEncoding.trim().toLowerCase();
  if (encoding !== '' && encoding !== 'gzip' && encoding !== 'identity') {
    throw new CoreError('UNSUPPORTED_MEDIA_TYPE', 'The only Content-Encoding understood is gzip');
  }
}

/** Whether the body is gzip; nearly every one is not. */
export function isPacked({ contentEncoding }: RequestHeaders): boolean {
  return contentEncoding !== '' && contentEncoding.trim().toLowerCase() === 'gzip';
}

/**
 * Unpacks a gzip body, never past the bound: what a small body claims to hold is not believed.
 * @throws CoreError BODY_TOO_LARGE or MALFORMED_BODY.
 */
export async function unpackBody(body: Buffer, bytesMax: number): Promise<Uint8Array> {
  try {
    return await gunzipAsync(body, { maxOutputLength: bytesMax, chunkSize: chunkBytes(body) });
  } catch (cause) {
    if ((cause as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE') {
      throw tooLarge(bytesMax, cause);
    }
    throw new CoreError('MALFORMED_BODY', 'The body is not valid gzip', { cause });
  }
}

/**
 * Bytes unpacked at a time. zlib unpacks off the event loop; each chunk it hands back is a turn of
 * the loop, and with zlib's own 16 KiB a body of megabytes waits for hundreds of them, which under
 * load are seconds. The last four bytes of gzip say how much it holds: a hint only, since a client
 * may lie there, so it decides how much is allocated at a time and nothing else.
 */
function chunkBytes(packed: Buffer): number {
  const hinted = packed.length < 4 ? 0 : packed.readUInt32LE(packed.length - 4) + 1;
  return Math.min(1_048_576, Math.max(16_384, hinted));
}

export function tooLarge(bytesMax: number, cause?: unknown): CoreError {
  return new CoreError('BODY_TOO_LARGE', `The body is over ${bytesMax} bytes`, { cause });
}
