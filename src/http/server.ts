import uws, { type HttpRequest, type HttpResponse, type us_listen_socket } from 'uWebSockets.js';
import { type BufferPool, createBufferPool } from '../buffer-pool.ts';
import { type ClientAddresses, createClientAddresses } from '../client-address.ts';
import { CoreError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { KnownNode, NodeDirectory } from '../nodes/directory.ts';
import { classifyFailure } from '../stores/failures.ts';
import {
  type BodyReader,
  BodyReading,
  type BodyResult,
  checkMediaType,
  discardBytesMax,
  isPacked,
  noBody,
  tooLarge,
  unpackBody,
} from './body.ts';
import { createDeadlines, type Deadlines } from './deadlines.ts';
import { createFailureLog, type FailureLog } from './failure-log.ts';
import { readForwardedFor, readHeaders } from './request-headers.ts';
import { nextRequestNumber, requestIdOf } from './request-id.ts';
import type { Reply, RequestHeaders, Route, RouteRequest } from './route.ts';
import { errorReply, write, writeLast } from './write-reply.ts';

export interface HttpServer {
  port: number;
  /** Stops accepting and waits until every request in flight is answered, or `deadlineMs` is over. */
  close(deadlineMs: number): Promise<void>;
}

export interface HttpServerOptions {
  host: string;
  /** 0 takes a free port. */
  port: number;
  /** The setting that moves the port, for whoever reads that it is taken. */
  portSetting: string;
  bodyBytesMax: number;
  bodySecondsMax: number;
  /** Whose `X-Forwarded-For` counts, as client-address.ts parses it. */
  trustedProxies: string;
  directory: Pick<NodeDirectory, 'known' | 'authenticate'>;
  routes: readonly Route[];
  log: Logger;
}

/** A body that is larger is rare, and its memory is better given back. */
const bodyMemory = { bytesMax: 1_048_576, keptBytesMax: 16_777_216 };

/** Largest body of a route that does not say: none of them needs one. */
const bodyBytesDefault = 1_024;

/** State of one server that its requests share. */
interface Serving extends HttpServerOptions {
  buffers: BufferPool;
  deadlines: Deadlines;
  addresses: ClientAddresses;
  draining: boolean;
  inFlight: number;
  onIdle: (() => void) | undefined;
  failures: FailureLog;
}

/**
 * Listens. Several processes may share the port (SO_REUSEPORT); the kernel spreads connections.
 * @throws CoreError PORT_TAKEN.
 */
export async function createHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const buffers = createBufferPool(bodyMemory);
  const serving: Serving = {
    ...options,
    buffers,
    deadlines: createDeadlines(options.bodySecondsMax),
    addresses: createClientAddresses(options.trustedProxies),
    draining: false,
    inFlight: 0,
    onIdle: undefined,
    failures: createFailureLog(options.log),
  };
  const app = uws.App();
  for (const route of options.routes) {
    const own = servedRoute(route, options.bodyBytesMax, false);
    const handle = (response: HttpResponse, request: HttpRequest): void =>
      serve(serving, own, response, request);
    if (route.method === 'POST') app.post(route.path, handle);
    else {
      app.get(route.path, handle);
      const head = servedRoute(route, options.bodyBytesMax, true);
      app.head(route.path, (response, request) => serve(serving, head, response, request));
    }
  }
  for (const path of new Set(options.routes.map((route) => route.path))) {
    const allow = allowedMethods(options.routes.filter((route) => route.path === path));
    app.any(path, (response, request) => {
      refuse(response, request, methodNotAllowed(allow));
    });
  }
  app.any('/*', (response, request) => {
    refuse(response, request, new CoreError('NOT_FOUND', 'There is no such route'));
  });
  const socket = await listen(app, options);
  return {
    port: uws.us_socket_local_port(socket),
    close: (deadlineMs) => drain(serving, socket, deadlineMs),
  };
}

/** A route as it is served for one of its methods. */
interface ServedRoute extends Route {
  bodyBytesMax: number;
  readsAtOnce: boolean;
  isHead: boolean;
}

/** The same fields in the same order for all routes, or V8 has to look for each field of each one. */
function servedRoute(route: Route, bodyBytesMax: number, isHead: boolean): ServedRoute {
  const { method, path, authenticated, readsAtOnce = false, handle } = route;
  const bytesMax = Math.min(bodyBytesMax, route.bodyBytesMax ?? bodyBytesDefault);
  return { method, path, authenticated, readsAtOnce, bodyBytesMax: bytesMax, handle, isHead };
}

/** Wherever GET is, HEAD is, too. */
function allowedMethods(routes: readonly Route[]): string {
  return routes.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ');
}

function listen(
  app: uws.TemplatedApp,
  { host, port, portSetting }: HttpServerOptions,
): Promise<us_listen_socket> {
  return new Promise((resolve, reject) => {
    app.listen(host, port, (socket) => {
      if (socket) resolve(socket);
      else reject(new CoreError('PORT_TAKEN', `Cannot listen on ${host}:${port} (${portSetting})`));
    });
  });
}

async function drain(
  serving: Serving,
  socket: us_listen_socket,
  deadlineMs: number,
): Promise<void> {
  serving.draining = true;
  uws.us_listen_socket_close(socket);
  if (serving.inFlight > 0) {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, deadlineMs);
      serving.onIdle = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
  serving.deadlines.close();
}

function methodNotAllowed(allow: string): CoreError {
  return new CoreError('METHOD_NOT_ALLOWED', `The method must be ${allow}`, {
    headers: { Allow: allow },
  });
}

/**
 * Answers without reading the body. Where a lot of it may follow, or its end is in doubt, the
 * connection is closed.
 */
function refuse(response: HttpResponse, request: HttpRequest, error: CoreError): void {
  const isHead = request.getMethod() === 'head';
  const { headers, framing } = readHeaders(request);
  const requestNumber = nextRequestNumber();
  if (framing === 'length' && Number(headers.contentLength || '0') <= discardBytesMax) {
    write(response, errorReply(error), { requestNumber, closes: false, isHead });
    return;
  }
  let aborted = false;
  response.onAborted(() => {
    aborted = true;
  });
  const reply = errorReply(framing === 'ambiguous' ? ambiguousFraming() : error);
  writeLast(response, () => aborted, reply, { requestNumber, isHead });
}

/**
 * One request. Everything up to the first await runs inside uWebSockets' callback: headers are
 * read, the abort handler and the body reader are in place before it returns.
 */
function serve(
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
    refuseToStart(response, route.isHead);
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
    // Nearly every key is known already; then nothing has to be awaited.
    exchange.node = serving.directory.known(headers.authKey);
    if (exchange.node === undefined) {
      askForKey(exchange);
      return;
    }
  } else exchange.address = addressOf(serving, response, request);
  reading.tell(exchange);
}

/** For a request that comes while this process stops. Its body is not read, so the connection closes. */
function refuseToStart(response: HttpResponse, isHead: boolean): void {
  let aborted = false;
  response.onAborted(() => {
    aborted = true;
  });
  const error = new CoreError('SHUTTING_DOWN', 'This process is stopping', {
    headers: { 'Retry-After': '1' },
  });
  const options = { requestNumber: nextRequestNumber(), isHead };
  writeLast(response, () => aborted, errorReply(error), options);
}

function askForKey(exchange: Exchange): void {
  const { serving, response, headers } = exchange;
  const key = authenticated(serving.directory.authenticate(headers.authKey));
  if (exchange.mayBeLarge) holdBack(response, key, () => exchange.isAborted);
  void answerUnknown(exchange, key);
}

/** Only routes without a key look at it. Must be called before the first await of a handler. */
function addressOf(serving: Serving, response: HttpResponse, request: HttpRequest): string {
  const peer = Buffer.from(response.getRemoteAddressAsText()).toString();
  return serving.addresses.senderOf(peer, () => readForwardedFor(request));
}

/** A request under way. */
class Exchange implements BodyReader, RouteRequest {
  readonly serving: Serving;
  readonly route: ServedRoute;
  readonly response: HttpResponse;
  readonly reading: BodyReading;
  readonly headers: RequestHeaders;
  readonly requestNumber = nextRequestNumber();
  /** Set for the route. */
  body: Uint8Array = noBody;
  /** Who calls, as client-address.ts tells senders apart; empty if a key tells it. */
  address = '';
  /** Undefined on routes that need no key, and until it is known. */
  node: KnownNode | undefined = undefined;
  isAborted = false;
  isChunked = false;
  /** Over `discardBytesMax`, or of no declared length. */
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

  /** Within uWebSockets' callback, unless the body has not come in time. */
  bodyEnded(received: BodyResult): void {
    answer(this, received, true);
  }
}

/**
 * Takes nothing more of a body off its connection until its key has been found good: what waits is
 * the kernel's, and for most of it the client's. What came with the head is kept meanwhile.
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
 * The steps of a request whose key is known: check, unpack, handle, reply. Nothing is awaited that is
 * there, so that a heartbeat is answered within uWebSockets' callback (`isCorked`). Never throws: this
 * is the edge where every failure becomes a reply.
 */
function answer(exchange: Exchange, received: BodyResult, isCorked: boolean): void {
  let handled: Reply | Promise<Reply>;
  try {
    handled = handle(exchange, received);
  } catch (thrown) {
    refuseAfter(exchange, thrown, received);
    return;
  }
  if ('then' in handled) {
    handled.then(
      (reply) => respond(exchange, { reply, closes: false, isCorked: false }),
      (thrown: unknown) => refuseAfter(exchange, thrown, received),
    );
  } else respond(exchange, { reply: handled, closes: false, isCorked });
}

/** @throws CoreError, or rejects with whatever the route's handler does. */
function handle(exchange: Exchange, received: BodyResult): Reply | Promise<Reply> {
  const { route, headers } = exchange;
  const bytesMax = route.bodyBytesMax;
  const body = bodyOf(received, bytesMax);
  if (route.method === 'POST') {
    checkMediaType(headers);
    if (isPacked(headers)) {
      // A copy: unpacking takes longer than the body is good for.
      return unpackBody(Buffer.from(body), bytesMax).then((unpacked) => {
        exchange.body = unpacked;
        return route.handle(exchange);
      });
    }
  }
  exchange.body = route.readsAtOnce ? body : Buffer.from(body);
  return route.handle(exchange);
}

/**
 * A request whose key has to be looked up. A small body arrives meanwhile; where the key is wrong it
 * is read to its end, so that the client can read the answer, but not kept. Of a large one nothing
 * more is read then: it is answered at once and the connection closed.
 */
async function answerUnknown(exchange: Exchange, key: Promise<KnownNode>): Promise<void> {
  const { reading, mayBeLarge } = exchange;
  try {
    exchange.node = await key;
    answer(exchange, await reading.result(), false);
  } catch (thrown) {
    if (mayBeLarge) reading.abort();
    else reading.release();
    refuseAfter(exchange, thrown, await reading.result());
  }
}

/** Answers with a failure; a connection that has not been read to its end is closed. */
function refuseAfter(exchange: Exchange, thrown: unknown, received: BodyResult): void {
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

/** @throws CoreError where there is no whole body. */
function bodyOf(received: BodyResult, bytesMax: number): Uint8Array {
  if (received.outcome === 'complete') return received.body;
  if (received.outcome === 'too-large') throw tooLarge(bytesMax);
  if (received.outcome === 'fragmented') {
    throw new CoreError('MALFORMED_BODY', 'The body comes in too many chunks that are too small');
  }
  throw new CoreError('MALFORMED_BODY', 'The body did not arrive in time');
}

/** Whether bytes of the body are still to come: then the connection cannot be used again. */
function isUnread(received: BodyResult): boolean {
  if (received.outcome === 'too-large') return !received.drained;
  return received.outcome !== 'complete';
}

async function authenticated(found: Promise<KnownNode | undefined>): Promise<KnownNode> {
  const node = await found;
  if (node === undefined) throw unauthorized();
  return node;
}

function unauthorized(): CoreError {
  return new CoreError('UNAUTHORIZED', 'The x-node-auth-key header is missing or not valid');
}

function ambiguousFraming(): CoreError {
  return new CoreError(
    'MALFORMED_BODY',
    'The length of the body is not clear: send one Content-Length, or Transfer-Encoding: chunked',
  );
}
