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
  const found: Found = { ...nothingFound };
  let lengths = 0;
  const encodings: string[] = [];
  request.forEach((name, value) => {
    if (name === 'content-length') lengths += 1;
    if (name === 'transfer-encoding') encodings.push(value);
    keep(found, name, value);
  });
  return {
    headers: {
      authKey: found.authKey ?? '',
      contentType: found.contentType ?? '',
      contentLength: found.contentLength ?? '',
      contentEncoding: found.contentEncoding ?? '',
      idempotencyKey: found.idempotencyKey ?? '',
      ifNoneMatch: found.ifNoneMatch ?? '',
      acceptEncoding: found.acceptEncoding ?? '',
    },
    framing: framingOf(lengths, encodings),
  };
}

type Found = Record<keyof RequestHeaders, string | undefined>;

const nothingFound: Found = {
  authKey: undefined,
  contentType: undefined,
  contentLength: undefined,
  contentEncoding: undefined,
  idempotencyKey: undefined,
  ifNoneMatch: undefined,
  acceptEncoding: undefined,
};

/** Not a Map: its look-ups, two a header, hash each name, which nothing else needs. */
function keep(found: Found, name: string, value: string): void {
  switch (name) {
    case 'x-node-auth-key':
      found.authKey ??= value;
      break;
    case 'content-type':
      found.contentType ??= value;
      break;
    case 'content-length':
      found.contentLength ??= value;
      break;
    case 'content-encoding':
      found.contentEncoding ??= value;
      break;
    case 'idempotency-key':
      found.idempotencyKey ??= value;
      break;
    case 'if-none-match':
      found.ifNoneMatch ??= value;
      break;
    case 'accept-encoding':
      found.acceptEncoding ??= value;
      break;
    default:
  }
}

function framingOf(lengths: number, encodings: readonly string[]): Framing {
  if (lengths + encodings.length > 1) return 'ambiguous';
  const encoding = encodings[0];
  if (encoding === undefined) return 'length';
  return encoding.trim().toLowerCase() === 'chunked' ? 'chunked' : 'ambiguous';
}
