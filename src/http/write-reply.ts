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
    if (!isAborted()) response.cork(() => write(response, reply, { ...options, closes: true }));
  });
}

export function write(
  response: HttpResponse,
  reply: Reply,
  options: { requestNumber: number; closes: boolean; isHead: boolean },
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
  if (!options.isHead && reply.status !== 304) response.end(reply.body ?? '', options.closes);
  // With any length given, even none, uWebSockets would write a Content-Length.
  else if (options.closes) response.endWithoutBody(0, true);
  else response.endWithoutBody();
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
