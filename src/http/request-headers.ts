import type { HttpRequest } from 'uWebSockets.js';
import { CoreError } from '../errors.ts';
import type { RequestHeaders, RequestTarget } from './route.ts';

/**
 * How the end of the body is marked. `ambiguous` means that a proxy in front of Core could see
 * another end than Core. Then a client could hide a second request from the proxy. There are three
 * such cases: several Content-Length or Transfer-Encoding headers, both kinds together, and an
 * encoding other than `chunked` (uWebSockets treats every encoding as chunked).
 */
type Framing = 'length' | 'chunked' | 'ambiguous';

/**
 * The headers that routes look at. If a header comes twice, the first one counts. uWebSockets has put
 * the names in lower case. Call it before the first await of a handler.
 */
export function readHeaders(request: HttpRequest): { headers: RequestHeaders; framing: Framing } {
  found = new Found();
  request.forEach(keep);
  return { headers: found, framing: framingOf(found.lengths, found.encodings) };
}

/** All lines of `X-Forwarded-For` as one list, since some proxies append a line of their own. */
export function readForwardedFor(request: HttpRequest): string {
  const lines: string[] = [];
  request.forEach((name, value) => {
    if (name === 'x-forwarded-for') lines.push(value);
  });
  return lines.join(',');
}

/** Call it before the first await of a handler. */
export function readTarget(request: HttpRequest): RequestTarget {
  return {
    parameter: request.getParameter(0),
    format: request.getQuery('format') ?? '',
    userAgent: request.getHeader('user-agent'),
    accept: request.getHeader('accept'),
  };
}

// All requests share one callback and one variable, because V8 would first have to find the code of a
// new function. This is safe: forEach goes through all headers before it returns.
let found: Found;
const keep = (name: string, value: string): void => found.keep(name, value);

/** A class, so that all fields exist from the start and V8 gives all requests one shape. */
class Found implements RequestHeaders {
  authKey = '';
  contentType = '';
  contentLength = '';
  contentEncoding = '';
  idempotencyKey = '';
  ifNoneMatch = '';
  acceptEncoding = '';
  postStream = '';
  postSequence = '';
  lengths = 0;
  encodings: readonly string[] = none;
  /** One bit for each header that has come. */
  private seen = 0;

  /** A switch, because a Map would hash each name twice. */
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
      case 'x-node-stream':
        if (this.isFirst(128)) this.postStream = value;
        break;
      case 'x-node-sequence':
        if (this.isFirst(256)) this.postSequence = value;
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

/**
 * The media type of a POST must be JSON. A body without a Content-Type counts as JSON.
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
    throw new CoreError('UNSUPPORTED_MEDIA_TYPE', 'The Content-Encoding must be gzip or identity');
  }
}

/** Whether the body is gzip. Most bodies are not. */
export function isCompressed({ contentEncoding }: RequestHeaders): boolean {
  return contentEncoding !== '' && contentEncoding.trim().toLowerCase() === 'gzip';
}
