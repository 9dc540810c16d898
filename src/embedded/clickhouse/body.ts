import type { IncomingMessage } from 'node:http';
import { pipeline, type Readable } from 'node:stream';
import { createGunzip, createInflate } from 'node:zlib';
import { clickhouseFault } from './fault.ts';

/**
 * The body in chunks, decompressed, bounded before and after decompression. If a body is over the bound,
 * this reads on to twice the bound and drops what it reads, because a client reads its 413 only after it
 * has sent everything.
 *
 * @throws (while iterating) 413 over the bound, 501 for an unknown encoding, 400 for broken gzip,
 * and the socket's own error if the client goes away half-way.
 */
export async function* readBody(
  request: IncomingMessage,
  bytesMax: number,
): AsyncGenerator<Buffer, undefined> {
  const declared = Number(request.headers['content-length'] ?? 0);
  if (declared > bytesMax) throw tooLargeFault(bytesMax);
  const encoding = request.headers['content-encoding'] ?? 'identity';
  let source: Readable = request;
  if (encoding === 'gzip' || encoding === 'deflate') {
    const decompress = encoding === 'gzip' ? createGunzip() : createInflate();
    // The iteration below throws the error, if there is one. The callback only has to exist.
    pipeline(request, decompress, () => undefined);
    source = decompress;
  } else if (encoding !== 'identity') {
    throw clickhouseFault(48, 'NOT_IMPLEMENTED', `Content-Encoding ${encoding} is not supported.`);
  }
  let bytes = 0;
  try {
    // If the reader gives up, the socket stays open: the answer still goes over it.
    for await (const chunk of source.iterator({ destroyOnReturn: false })) {
      bytes += chunk.length;
      if (bytes > 2 * bytesMax) break;
      if (bytes <= bytesMax) yield chunk;
    }
  } catch (thrown) {
    throw bodyFault(thrown);
  }
  if (bytes > bytesMax) throw tooLargeFault(bytesMax);
  return undefined;
}

/** Reads chunks until there are at least `bytesMin` bytes, or the body ends. */
export async function readHead(
  chunks: AsyncIterator<Buffer>,
  start: Buffer,
  bytesMin: number,
): Promise<{ head: Buffer; ended: boolean }> {
  const parts = [start];
  let bytes = start.length;
  while (bytes < bytesMin) {
    const next = await chunks.next();
    if (next.done) return { head: Buffer.concat(parts), ended: true };
    parts.push(next.value);
    bytes += next.value.length;
  }
  return { head: Buffer.concat(parts), ended: false };
}

function tooLargeFault(bytesMax: number): Error {
  return clickhouseFault(307, 'TOO_MANY_BYTES', `The body is over ${bytesMax} bytes.`, {
    status: 413,
  });
}

function bodyFault(thrown: unknown): unknown {
  const code = thrown instanceof Error ? (thrown as NodeJS.ErrnoException).code : undefined;
  if (code?.startsWith('Z_') !== true) return thrown;
  return clickhouseFault(354, 'ZLIB_INFLATE_FAILED', 'The body cannot be decompressed.', {
    status: 400,
    cause: thrown,
  });
}
