import type { HttpRequest, HttpResponse } from 'uWebSockets.js';
import type { BufferPool } from '../buffer-pool.ts';
import type { ClientAddresses } from '../client-address.ts';
import type { KnownNode, NodeDirectory } from '../nodes/directory.ts';
import { classifyFailure } from '../stores/failures.ts';
import {
  type BodyReader,
  BodyReading,
  type BodyResult,
  type Deadlines,
  discardBytesMax,
  isUnread,
  noBody,
  wholeBody,
} from './body.ts';
import { decompressBody } from './decompress.ts';
import type { FailureLog } from './failure-log.ts';
import { ambiguousFraming, refuse, refuseWhileStopping, unauthorized } from './refuse.ts';
import { errorReply, nextRequestNumber, requestIdOf, write, writeLast } from './reply.ts';
import {
  checkMediaType,
  isCompressed,
  readForwardedFor,
  readHeaders,
  readTarget,
} from './request-headers.ts';
import type { Reply, RequestHeaders, RequestTarget, Route, RouteRequest } from './route.ts';

// The way of a request, from its head to its answer: serve, answer, handle, respond. server.ts gives
// uWebSockets one `serve` for each route.

/** What the requests of one server share. */
export interface Serving {
  directory: Pick<NodeDirectory, 'known' | 'authenticate'>;
  buffers: BufferPool;
  deadlines: Deadlines;
  addresses: ClientAddresses;
  failures: FailureLog;
  /** Set once the process stops. Requests that begin after that are refused. */
  draining: boolean;
  inFlight: number;
  /** Called when the last request in flight is answered. */
  onIdle: (() => void) | undefined;
}

/** A route as it is served for one of its methods. */
export interface ServedRoute extends Route {
  bodyBytesMax: number;
  readsAtOnce: boolean;
  readsTarget: boolean;
  isHead: boolean;
}

/**
 * One request. Everything here runs inside uWebSockets' callback: the headers are read, and the abort
 * handler and the body reader are in place, before it returns.
 */
export function serve(
  serving: Serving,
  route: ServedRoute,
  response: HttpResponse,
  request: HttpRequest,
): void {
  const { headers, framing } = readHeaders(request);
  if (framing === 'ambiguous') {
    refuse(response, request, ambiguousFraming());
    return;
  }
  if (serving.draining) {
    refuseWhileStopping(response, route.isHead);
    return;
  }
  if (route.authenticated && headers.authKey === '') {
    refuse(response, request, unauthorized());
    return;
  }
  const declaredBytes = framing === 'chunked' ? undefined : Number(headers.contentLength || '0');
  const bounds = { bytesMax: route.bodyBytesMax, declaredBytes };
  const reading = new BodyReading(response, bounds, serving);
  const exchange = new Exchange(serving, route, response, reading, headers);
  exchange.isChunked = framing === 'chunked';
  exchange.mayBeLarge = (declaredBytes ?? Infinity) > discardBytesMax;
  response.onAborted(() => {
    exchange.isAborted = true;
    reading.abort();
  });
  serving.inFlight += 1;
  if (route.authenticated) {
    // The process knows nearly every key already, and then awaits nothing.
    exchange.node = serving.directory.known(headers.authKey);
    if (exchange.node === undefined) {
      lookUpKey(exchange);
      return;
    }
  } else {
    exchange.address = addressOf(serving, response, request);
    if (route.readsTarget) exchange.target = readTarget(request);
  }
  reading.whenEnded(exchange);
}

/** Who calls a route without a key. Call it before the first await of a handler. */
function addressOf(serving: Serving, response: HttpResponse, request: HttpRequest): string {
  const peer = Buffer.from(response.getRemoteAddressAsText()).toString();
  return serving.addresses.senderOf(peer, () => readForwardedFor(request));
}

/** A request under way. It is a class so that V8 gives all requests one shape. */
class Exchange implements BodyReader, RouteRequest {
  readonly serving: Serving;
  readonly route: ServedRoute;
  readonly response: HttpResponse;
  readonly reading: BodyReading;
  readonly headers: RequestHeaders;
  readonly requestNumber = nextRequestNumber();
  /** Set before the route's handler is called. */
  body: Uint8Array = noBody;
  /** The sender's address (client-address.ts); empty if a key says who sends. */
  address = '';
  target: RequestTarget | undefined = undefined;
  /** Undefined on routes that need no key, and until the key is found. */
  node: KnownNode | undefined = undefined;
  isAborted = false;
  isChunked = false;
  /** The declared length is over `discardBytesMax`, or there is none. */
  mayBeLarge = false;

  constructor(
    serving: Serving,
    route: ServedRoute,
    response: HttpResponse,
    reading: BodyReading,
    headers: RequestHeaders,
  ) {
    this.serving = serving;
    this.route = route;
    this.response = response;
    this.reading = reading;
    this.headers = headers;
  }

  get requestId(): string {
    return requestIdOf(this.requestNumber);
  }

  /** Called within uWebSockets' callback, unless the body did not arrive in time. */
  bodyEnded(received: BodyResult): void {
    answer(this, received, true);
  }
}

/** Looks up a key that the process does not know yet, while the body arrives. */
function lookUpKey(exchange: Exchange): void {
  const { serving, response, headers } = exchange;
  const key = authenticated(serving.directory.authenticate(headers.authKey));
  if (exchange.mayBeLarge) holdBack(response, key, () => exchange.isAborted);
  void answerUnknown(exchange, key);
}

async function authenticated(found: Promise<KnownNode | undefined>): Promise<KnownNode> {
  const node = await found;
  if (node === undefined) throw unauthorized();
  return node;
}

/**
 * Stops reading the connection until the key is found to be good. Bytes that wait are in the kernel,
 * or with the client. Core keeps what came with the head.
 */
function holdBack(response: HttpResponse, key: Promise<KnownNode>, isAborted: () => boolean): void {
  response.pause();
  key.then(
    () => {
      if (!isAborted()) response.resume();
    },
    () => undefined,
  );
}

/**
 * Answers once the key is looked up. If the key is wrong, Core reads a small body to its end without
 * keeping it, so that the client can read the answer. A large body is not read any further: Core
 * answers at once and closes the connection.
 */
async function answerUnknown(exchange: Exchange, key: Promise<KnownNode>): Promise<void> {
  const { reading, mayBeLarge } = exchange;
  try {
    exchange.node = await key;
    answer(exchange, await reading.result(), false);
  } catch (thrown) {
    if (mayBeLarge) reading.abort();
    else reading.release();
    answerFailure(exchange, thrown, await reading.result());
  }
}

/**
 * The steps of a request whose key is known: check, decompress, handle, reply. It awaits only what is
 * not there yet, so a heartbeat is answered within uWebSockets' callback (`isCorked`). Never throws:
 * this is the edge at which every failure becomes a reply.
 */
function answer(exchange: Exchange, received: BodyResult, isCorked: boolean): void {
  let handled: Reply | Promise<Reply>;
  try {
    handled = handle(exchange, received);
  } catch (thrown) {
    answerFailure(exchange, thrown, received);
    return;
  }
  if ('then' in handled) {
    handled.then(
      (reply) => respond(exchange, { reply, closes: false, isCorked: false }),
      (thrown: unknown) => answerFailure(exchange, thrown, received),
    );
  } else respond(exchange, { reply: handled, closes: false, isCorked });
}

/** @throws CoreError, or rejects with whatever the route's handler does. */
function handle(exchange: Exchange, received: BodyResult): Reply | Promise<Reply> {
  const { route, headers } = exchange;
  const bytesMax = route.bodyBytesMax;
  const body = wholeBody(received, bytesMax);
  if (route.method === 'POST') {
    checkMediaType(headers);
    if (isCompressed(headers)) {
      // A copy, since decompressing takes longer than the body is valid.
      return decompressBody(Buffer.from(body), bytesMax).then((decompressed) => {
        exchange.body = decompressed;
        return route.handle(exchange);
      });
    }
  }
  exchange.body = route.readsAtOnce ? body : Buffer.from(body);
  return route.handle(exchange);
}

/** Answers with a failure. Closes the connection if the body has not been read to its end. */
function answerFailure(exchange: Exchange, thrown: unknown, received: BodyResult): void {
  const error = classifyFailure(thrown);
  exchange.serving.failures.write(exchange.requestId, exchange.route, error);
  const closes = isUnread(received);
  respond(exchange, { reply: errorReply(error), closes, isCorked: false });
}

/** Ends a request. Within uWebSockets' own callback the connection is corked already. */
function respond(
  exchange: Exchange,
  { reply, closes, isCorked }: { reply: Reply; closes: boolean; isCorked: boolean },
): void {
  const { serving, response, requestNumber } = exchange;
  const options = { requestNumber, closes, isHead: exchange.route.isHead };
  if (closes || exchange.isChunked) {
    writeLast(response, () => exchange.isAborted, reply, options);
  } else if (!exchange.isAborted) {
    if (isCorked) write(response, reply, options);
    else response.cork(() => write(response, reply, options));
  }
  exchange.reading.release();
  serving.inFlight -= 1;
  if (serving.inFlight === 0) serving.onIdle?.();
}
