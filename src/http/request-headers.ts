import type { HttpRequest } from 'uWebSockets.js';
import type { RequestHeaders } from './route.ts';

/**
 * How the end of the body is marked. `ambiguous` is what two readers could take differently, which
 * a client could use to hide a second request from a proxy in front of Core: several
 * Content-Length or Transfer-Encoding headers, both kinds together, or an encoding that is not
 * plainly `chunked` (uWebSockets takes every encoding for chunked).
 */
export type Framing = 'length' | 'chunked' | 'ambiguous';

/**
 * The headers that routes look at. Of one that comes twice the first counts. Names are in lower
 * case already. Must be called before the first await of a handler.
 */
export function readHeaders(request: HttpRequest): { headers: RequestHeaders; framing: Framing } {
  const found = new Map<string, string>();
  let lengths = 0;
  const encodings: string[] = [];
  request.forEach((name, value) => {
    if (name === 'content-length') lengths += 1;
    if (name === 'transfer-encoding') encodings.push(value);
    if (!found.has(name)) found.set(name, value);
  });
  return {
    headers: {
      authKey: found.get('x-node-auth-key') ?? '',
      contentType: found.get('content-type') ?? '',
      contentLength: found.get('content-length') ?? '',
      contentEncoding: found.get('content-encoding') ?? '',
      idempotencyKey: found.get('idempotency-key') ?? '',
      ifNoneMatch: found.get('if-none-match') ?? '',
      acceptEncoding: found.get('accept-encoding') ?? '',
    },
    framing: framingOf(lengths, encodings),
  };
}

function framingOf(lengths: number, encodings: readonly string[]): Framing {
  if (lengths + encodings.length > 1) return 'ambiguous';
  const encoding = encodings[0];
  if (encoding === undefined) return 'length';
  return encoding.trim().toLowerCase() === 'chunked' ? 'chunked' : 'ambiguous';
}
