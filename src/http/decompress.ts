import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { CoreError } from '../errors.ts';
import { tooLarge } from './body.ts';

const gunzipAsync = promisify(gunzip);

/**
 * Decompresses a gzip body, and stops at the bound: a small body may claim to hold anything.
 * @throws CoreError BODY_TOO_LARGE or MALFORMED_BODY.
 */
export async function decompressBody(body: Buffer, bytesMax: number): Promise<Uint8Array> {
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
 * Bytes decompressed at a time. zlib works off the event loop, but each chunk that it hands back is a
 * turn of the loop. With zlib's own 16 KiB a body of megabytes waits for hundreds of turns, which take
 * seconds under load. The last four bytes of gzip say how much it holds. A client may lie there, so
 * they only decide how much is allocated at a time.
 */
function chunkBytes(compressed: Buffer): number {
  const length = compressed.length;
  const hinted = length < 4 ? 0 : compressed.readUInt32LE(length - 4) + 1;
  return Math.min(1_048_576, Math.max(16_384, hinted));
}
