import type { HttpRequest, HttpResponse } from 'uWebSockets.js';
import { CoreError } from '../errors.ts';
import { discardBytesMax } from './body.ts';
import { errorReply, nextRequestNumber, write, writeLast } from './reply.ts';
import { readHeaders } from './request-headers.ts';

// Answers to requests whose body Core does not read.

/**
 * Answers without reading the body. If the body may be large, or nobody can tell where it ends, the
 * connection is closed.
 */
export function refuse(response: HttpResponse, request: HttpRequest, error: CoreError): void {
  const isHead = request.getMethod() === 'head';
  const { headers, framing } = readHeaders(request);
  if (framing === 'length' && Number(headers.contentLength || '0') <= discardBytesMax) {
    const requestNumber = nextRequestNumber();
    write(response, errorReply(error), { requestNumber, closes: false, isHead });
    return;
  }
  refuseAndClose(response, framing === 'ambiguous' ? ambiguousFraming() : error, isHead);
}

/** For a request that arrives while this process stops. */
export function refuseWhileStopping(response: HttpResponse, isHead: boolean): void {
  const error = new CoreError('SHUTTING_DOWN', 'This process is stopping', {
    headers: { 'Retry-After': '1' },
  });
  refuseAndClose(response, error, isHead);
}

function refuseAndClose(response: HttpResponse, error: CoreError, isHead: boolean): void {
  let aborted = false;
  response.onAborted(() => {
    aborted = true;
  });
  const options = { requestNumber: nextRequestNumber(), isHead };
  writeLast(response, () => aborted, errorReply(error), options);
}

export function notFound(): CoreError {
  return new CoreError('NOT_FOUND', 'There is no such route');
}

export function methodNotAllowed(allow: string): CoreError {
  return new CoreError('METHOD_NOT_ALLOWED', `The method must be ${allow}`, {
    headers: { Allow: allow },
  });
}

export function unauthorized(): CoreError {
  return new CoreError('UNAUTHORIZED', 'The x-node-auth-key header is missing or not valid');
}

export function ambiguousFraming(): CoreError {
  return new CoreError(
    'MALFORMED_BODY',
    'The length of the body is not clear: send one Content-Length, or Transfer-Encoding: chunked',
  );
}
