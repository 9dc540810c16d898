import type { HttpResponse } from 'uWebSockets.js';
import { STATUS_CODES } from 'node:http';
import { type CoreError, errorBody } from '../errors.ts';
import { requestIdOf, writeRequestNumber } from './request-id.ts';
import { jsonHeaders, type Reply } from './route.ts';

/** What the wire shows of a failure; a 503 always says when to come back. */
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

/**
 * The last answer on a connection. It is written once uWebSockets has gone through all bytes that
 * it has: while no answer is out it drops a connection on which another request begins, but after
 * one it would serve what follows, also where an answer says that the connection closes.
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
      // uWebSockets now waits for a body of this length, and serves nothing that comes meanwhile.
      response.tryEnd('', bytes);
    });
    response.close();
  });
}

/** Ends a request. The answer to a HEAD has no body, but the length of the one that a GET would bring. */
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
  // With any length given, even none, uWebSockets would write a Content-Length.
  if (options.closes) {
    response.endWithoutBody(0, true);
    return;
  }
  // Given the length itself, it would wait for a body of that length.
  if (reply.status !== 304) response.writeHeader('Content-Length', String(bodyBytes(reply)));
  response.endWithoutBody();
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
  // Without a status uWebSockets writes 200.
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
 * Both header lines of nearly every answer at once, and as bytes: calls from JavaScript, and strings that
 * uWebSockets has to encode, are a tenth of what a heartbeat costs. It writes a value as it is, so
 * that one can hold the line that follows.
 */
function writeJsonHeaders(response: HttpResponse, requestNumber: number): void {
  writeRequestNumber(jsonLines, jsonLines.length, requestNumber);
  response.writeHeader(contentType, jsonLines);
}
