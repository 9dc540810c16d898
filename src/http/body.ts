import type { HttpResponse } from 'uWebSockets.js';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import type { BufferPool } from '../buffer-pool.ts';
import { CoreError } from '../errors.ts';
import type { RequestHeaders } from './route.ts';

const gunzipAsync = promisify(gunzip);

/** A body that is over its bound is still read to its end up to this many times the bound, so that
 * the client can read the answer; past that the connection is closed. */
const drainFactor = 4;

export type BodyResult =
  | { outcome: 'complete'; body: Buffer }
  | { outcome: 'too-large'; drained: boolean }
  | { outcome: 'too-slow' }
  | { outcome: 'aborted' };

export interface BodyReading {
  /** Never rejects. */
  result: Promise<BodyResult>;
  /** The client has gone away: nothing more will come. */
  abort: () => void;
  /**
   * Nobody looks at the body from here on: its memory is another request's, and what is still to
   * come is read, within the same bounds, and not kept.
   */
  release: () => void;
}

/**
 * Largest body that is read to its end although nobody will look at it, so that the client can read
 * the answer and the connection goes on. Where more may come the connection is closed instead.
 */
export const discardBytesMax = 65_536;

/**
 * Collects a body. Every chunk is copied: its memory is taken back when the callback returns.
 * Must be called before the first await of a handler, or chunks are lost. `declaredBytes` is
 * undefined where the end shows only when it comes (chunked); else the body is collected in one
 * buffer of that size, which `release` gives back.
 */
export function readBody(
  response: HttpResponse,
  bounds: { bytesMax: number; secondsMax: number; declaredBytes: number | undefined },
  buffers: BufferPool,
): BodyReading {
  let finish: (result: BodyResult) => void = () => undefined;
  let timer: NodeJS.Timeout | undefined;
  const result = new Promise<BodyResult>((resolve) => {
    finish = (received) => {
      clearTimeout(timer);
      resolve(received);
    };
  });
  const { declaredBytes = 1 } = bounds;
  if (declaredBytes > bounds.bytesMax * drainFactor) {
    finish({ outcome: 'too-large', drained: false });
    return { result, abort: noop, release: noop };
  }
  // Not left to onData: uWebSockets never calls it for `Content-Length: 0` where the head came in
  // more than one packet.
  if (declaredBytes === 0) {
    finish({ outcome: 'complete', body: Buffer.alloc(0) });
    return { result, abort: noop, release: noop };
  }
  const collected = collector(bounds, buffers);
  let bytes = 0;
  // From the end of the headers on: a client that never sends a byte of its body is slow, too.
  timer = setTimeout(() => finish({ outcome: 'too-slow' }), bounds.secondsMax * 1_000);
  response.onData((chunk, isLast) => {
    bytes += chunk.byteLength;
    if (bytes > bounds.bytesMax) collected.drop();
    else collected.add(new Uint8Array(chunk));
    if (isLast) {
      if (bytes > bounds.bytesMax) finish({ outcome: 'too-large', drained: true });
      else finish({ outcome: 'complete', body: collected.body() });
    } else if (bytes > bounds.bytesMax * drainFactor) {
      finish({ outcome: 'too-large', drained: false });
    }
  });
  return {
    result,
    abort: () => finish({ outcome: 'aborted' }),
    release: collected.drop,
  };
}

const noop = (): void => undefined;

/** Where the chunks of one body go; after `drop` nowhere any more. */
interface Collector {
  add(chunk: Uint8Array): void;
  body(): Buffer;
  drop: () => void;
}

function collector(
  { declaredBytes, bytesMax }: { declaredBytes: number | undefined; bytesMax: number },
  buffers: BufferPool,
): Collector {
  if (declaredBytes === undefined || declaredBytes > bytesMax) return chunkCollector();
  let buffer: Buffer | undefined;
  let dropped = false;
  let bytes = 0;
  return {
    add(chunk) {
      if (dropped) return;
      // Only now: a client that declares a body and never sends it takes no memory.
      buffer ??= buffers.take(declaredBytes);
      buffer.set(chunk, bytes);
      bytes += chunk.length;
    },
    body: () => buffer?.subarray(0, bytes) ?? Buffer.alloc(0),
    drop: () => {
      dropped = true;
      if (buffer !== undefined) buffers.give(buffer);
      buffer = undefined;
    },
  };
}

function chunkCollector(): Collector {
  let chunks: Buffer[] | undefined = [];
  return {
    add: (chunk) => chunks?.push(Buffer.from(chunk)),
    body: () => Buffer.concat(chunks ?? []),
    drop: () => {
      chunks = undefined;
    },
  };
}

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
  return contentEncoding.trim().toLowerCase() === 'gzip';
}

/**
 * Unpacks a gzip body, never past the bound: what a small body claims to hold is not believed.
 * @throws CoreError BODY_TOO_LARGE or MALFORMED_BODY.
 */
export async function unpackBody(body: Buffer, bytesMax: number): Promise<Buffer> {
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
