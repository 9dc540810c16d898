import type { HttpResponse } from 'uWebSockets.js';
import { randomBytes } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import { type CoreError, errorBody } from '../errors.ts';
import { jsonHeaders, type Reply } from './route.ts';

// A request's id is `<prefix>-<number>`: unique over processes and restarts. Core makes the text only
// for the log, and writes it in place for the wire.

/** Room for three years at 100,000 requests a second in one process. */
const digits = 13;
const zero = '0'.charCodeAt(0);
const prefix = randomBytes(4).toString('hex');
let requestCount = 0;

export function nextRequestNumber(): number {
  requestCount += 1;
  return requestCount;
}

export function requestIdOf(requestNumber: number): string {
  return `${prefix}-${String(requestNumber).padStart(digits, '0')}`;
}

/** What the wire shows of a failure. A 503 always says when to come back. */
export function errorReply(error: CoreError): Reply {
  const retry = error.status === 503 && error.headers['Retry-After'] === undefined;
  return {
    status: error.status,
    headers: {
      'Content-Type': 'application/json',
      ...(retry ? { 'Retry-After': '2' } : {}),
      ...error.headers,
    },
    body: errorBody(error),
  };
}

/** Ends a request. The answer to a HEAD has the length of what a GET would bring, but no body. */
export function write(
  response: HttpResponse,
  reply: Reply,
  options: { requestNumber: number; closes: boolean; isHead: boolean },
): void {
  writeHead(response, reply, options);
  if (!options.isHead && reply.status !== 304) {
    response.end(reply.body ?? '', options.closes);
    return;
  }
  // With a length, even 0, uWebSockets would write a Content-Length of its own.
  if (options.closes) {
    response.endWithoutBody(0, true);
    return;
  }
  // uWebSockets would wait for a body of the length that it is given, so the header is written here.
  if (reply.status !== 304) response.writeHeader('Content-Length', String(bodyBytes(reply)));
  response.endWithoutBody();
}

/**
 * Writes the last answer on a connection, once uWebSockets has read all bytes that it has. While no
 * answer is out, uWebSockets drops a connection on which another request begins. After an answer it
 * would serve that request, even if the answer says that the connection closes.
 */
export function writeLast(
  response: HttpResponse,
  isAborted: () => boolean,
  reply: Reply,
  options: { requestNumber: number; isHead: boolean },
): void {
  setImmediate(() => {
    if (isAborted()) return;
    const closing = { ...options, closes: true };
    const bytes = options.isHead ? bodyBytes(reply) : 0;
    if (bytes === 0) {
      response.cork(() => write(response, reply, closing));
      return;
    }
    response.cork(() => {
      writeHead(response, reply, closing);
      // uWebSockets now waits for a body of this length, so it serves nothing that comes meanwhile.
      response.tryEnd('', bytes);
    });
    response.close();
  });
}

function bodyBytes(reply: Reply): number {
  return Buffer.byteLength(reply.body ?? '');
}

/** Status and header lines. */
function writeHead(
  response: HttpResponse,
  reply: Reply,
  options: { requestNumber: number; closes: boolean },
): void {
  // uWebSockets writes a 200 by itself.
  if (reply.status !== 200) {
    response.writeStatus(`${reply.status} ${STATUS_CODES[reply.status] ?? ''}`);
  }
  if (reply.headers === jsonHeaders) writeJsonHeaders(response, options.requestNumber);
  else {
    response.writeHeader('X-Request-Id', requestIdOf(options.requestNumber));
    for (const name in reply.headers) response.writeHeader(name, reply.headers[name] ?? '');
  }
  if (options.closes) response.writeHeader('Connection', 'close');
}

const contentType = Buffer.from('Content-Type');
const jsonLines = Buffer.from(`${jsonHeaders['Content-Type']}\r\nX-Request-Id: ${requestIdOf(0)}`);

/**
 * Writes both header lines of nearly every answer in one call, as bytes. Separate calls with strings
 * that uWebSockets has to encode are a tenth of the cost of a heartbeat. uWebSockets does not check a
 * header's value, so the value can hold the next line.
 */
function writeJsonHeaders(response: HttpResponse, requestNumber: number): void {
  overwriteRequestNumber(jsonLines, jsonLines.length, requestNumber);
  response.writeHeader(contentType, jsonLines);
}

/** Writes the number over the digits that end at `end`. */
function overwriteRequestNumber(bytes: Uint8Array, end: number, requestNumber: number): void {
  let rest = requestNumber;
  for (let at = end - 1; at >= end - digits; at -= 1) {
    const tens = Math.floor(rest / 10);
    bytes[at] = zero + rest - tens * 10;
    rest = tens;
  }
}
