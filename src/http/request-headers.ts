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
  found = new Found();
  request.forEach(keep);
  return { headers: found, framing: framingOf(found.lengths, found.encodings) };
}

/** All lines of `X-Forwarded-For` as one list: some proxies add a line of their own behind the others. */
export function readForwardedFor(request: HttpRequest): string {
  const lines: string[] = [];
  request.forEach((name, value) => {
    if (name === 'x-forwarded-for') lines.push(value);
  });
  return lines.join(',');
}

// One function and one place for all requests, since uWebSockets goes through the headers before it
// returns: V8 has to find the code of a new function first.
let found: Found;
const keep = (name: string, value: string): void => found.keep(name, value);

/** A class, since each request has one: all fields are there from the start, where V8 expects them. */
class Found implements RequestHeaders {
  authKey = '';
  contentType = '';
  contentLength = '';
  contentEncoding = '';
  idempotencyKey = '';
  ifNoneMatch = '';
  acceptEncoding = '';
  lengths = 0;
  encodings: readonly string[] = none;
  /** Bits of the headers that came. */
  private seen = 0;

  /** Not a Map: its look-ups, two a header, hash each name, which nothing else needs. */
  keep(name: string, value: string): void {
    switch (name) {
      case 'x-node-auth-key':
        if (this.isFirst(1)) this.authKey = value;
        break;
      case 'content-type':
        if (this.isFirst(2)) this.contentType = value;
        break;
      case 'content-length':
        if (this.isFirst(4)) this.contentLength = value;
        this.lengths += 1;
        break;
      case 'transfer-encoding':
        this.encodings = [...this.encodings, value];
        break;
      case 'content-encoding':
        if (this.isFirst(8)) this.contentEncoding = value;
        break;
      case 'idempotency-key':
        if (this.isFirst(16)) this.idempotencyKey = value;
        break;
      case 'if-none-match':
        if (this.isFirst(32)) this.ifNoneMatch = value;
        break;
      case 'accept-encoding':
        if (this.isFirst(64)) this.acceptEncoding = value;
        break;
      default:
    }
  }

  private isFirst(header: number): boolean {
    const isFirst = (this.seen & header) === 0;
    this.seen |= header;
    return isFirst;
  }
}

const none: readonly string[] = [];

function framingOf(lengths: number, encodings: readonly string[]): Framing {
  if (lengths + encodings.length > 1) return 'ambiguous';
  const encoding = encodings[0];
  if (encoding === undefined) return 'length';
  return encoding.trim().toLowerCase() === 'chunked' ? 'chunked' : 'ambiguous';
}
