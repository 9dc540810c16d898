import uws, { type HttpRequest, type HttpResponse, type us_listen_socket } from 'uWebSockets.js';
import { createBufferPool } from '../buffer-pool.ts';
import { createClientAddresses } from '../client-address.ts';
import { CoreError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { NodeDirectory } from '../nodes/directory.ts';
import { createDeadlines } from './body.ts';
import { createFailureLog } from './failure-log.ts';
import { methodNotAllowed, notFound, refuse } from './refuse.ts';
import type { Route } from './route.ts';
import { type ServedRoute, type Serving, serve } from './serve.ts';

export interface HttpServer {
  port: number;
  /** Stops listening, and waits until every request in flight is answered or `deadlineMs` is over. */
  close(deadlineMs: number): Promise<void>;
}

interface HttpServerOptions {
  host: string;
  /** 0 takes a free port. */
  port: number;
  /** The setting that moves the port, for the error that says that the port is taken. */
  portSetting: string;
  bodyBytesMax: number;
  bodySecondsMax: number;
  /** The proxies whose `X-Forwarded-For` counts, as client-address.ts parses them. */
  trustedProxies: string;
  directory: Pick<NodeDirectory, 'known' | 'authenticate'>;
  routes: readonly Route[];
  log: Logger;
}

/** Buffers over `bytesMax` are rare, so their memory is given back. */
const bodyMemory = { bytesMax: 1_048_576, keptBytesMax: 16_777_216 };

/** Largest body of a route that names no bound, since such a route needs no body. */
const bodyBytesDefault = 1_024;

/**
 * Starts the HTTP server. Several processes may share the port (SO_REUSEPORT), and the kernel spreads
 * the connections.
 * @throws CoreError PORT_TAKEN.
 */
export async function createHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const serving: Serving = {
    directory: options.directory,
    buffers: createBufferPool(bodyMemory),
    deadlines: createDeadlines(options.bodySecondsMax),
    addresses: createClientAddresses(options.trustedProxies),
    failures: createFailureLog(options.log),
    draining: false,
    inFlight: 0,
    onIdle: undefined,
  };
  const app = uws.App();
  for (const route of options.routes) {
    const served = servedRoute(route, options.bodyBytesMax, false);
    const handle = (response: HttpResponse, request: HttpRequest): void =>
      serve(serving, served, response, request);
    if (route.method === 'POST') app.post(route.path, handle);
    else {
      app.get(route.path, handle);
      const head = servedRoute(route, options.bodyBytesMax, true);
      app.head(route.path, (response, request) => serve(serving, head, response, request));
    }
  }
  for (const path of new Set(options.routes.map((route) => route.path))) {
    const allow = allowedMethods(options.routes.filter((route) => route.path === path));
    app.any(path, (response, request) => refuse(response, request, methodNotAllowed(allow)));
  }
  app.any('/*', (response, request) => refuse(response, request, notFound()));
  const socket = await listen(app, options);
  return {
    port: uws.us_socket_local_port(socket),
    async close(deadlineMs) {
      await drain(serving, socket, deadlineMs);
      serving.deadlines.close();
    },
  };
}

/** All routes get the same fields in the same order, so that V8 reads them all in the same way. */
function servedRoute(route: Route, bodyBytesMax: number, isHead: boolean): ServedRoute {
  const { method, path, authenticated, readsAtOnce = false, readsTarget = false, handle } = route;
  const bytesMax = Math.min(bodyBytesMax, route.bodyBytesMax ?? bodyBytesDefault);
  return {
    method,
    path,
    authenticated,
    readsAtOnce,
    readsTarget,
    bodyBytesMax: bytesMax,
    handle,
    isHead,
  };
}

/** Every route with GET also has HEAD. */
function allowedMethods(routes: readonly Route[]): string {
  return routes.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ');
}

/** @throws CoreError PORT_TAKEN. */
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

/** Stops listening, and waits until every request in flight is answered or the deadline is over. */
async function drain(
  serving: Serving,
  socket: us_listen_socket,
  deadlineMs: number,
): Promise<void> {
  serving.draining = true;
  uws.us_listen_socket_close(socket);
  if (serving.inFlight === 0) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, deadlineMs);
    serving.onIdle = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}
