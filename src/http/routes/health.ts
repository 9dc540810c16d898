import { CoreError } from '../../errors.ts';
import type { Readiness } from '../../stores/readiness.ts';
import { errorReply } from '../reply.ts';
import { json, okReply, type Reply, type Route } from '../route.ts';

/** GET /healthz: the process is alive. A node compares its clock with the Date, which uWebSockets writes. */
export function healthzRoute(): Route {
  return { method: 'GET', path: '/healthz', authenticated: false, handle: () => okReply };
}

/**
 * GET /readyz for load balancers, which need no key: 200 while every store answers, and 503
 * otherwise. It names no store. It asks the stores at most once a second, so that a flood of requests
 * costs them nothing.
 */
export function readyzRoute(deps: { readiness: Readiness }): Route {
  const unready = errorReply(new CoreError('STORE_UNAVAILABLE', 'This process is not ready'));
  return {
    method: 'GET',
    path: '/readyz',
    authenticated: false,
    async handle(): Promise<Reply> {
      return (await deps.readiness.areAllThere()) ? okReply : unready;
    },
  };
}

/** GET /readyz for operators: asks the stores each time, and a 503 names those that are away. */
export function readyzInFullRoute(deps: { readiness: Readiness }): Route {
  return {
    method: 'GET',
    path: '/readyz',
    authenticated: false,
    async handle(): Promise<Reply> {
      const away = await deps.readiness.storesAway();
      if (away.length === 0) return okReply;
      const reply = json(503, {
        error: { code: 'STORE_UNAVAILABLE', message: `Not available: ${away.join(', ')}` },
        away,
      });
      return { ...reply, headers: { ...reply.headers, 'Retry-After': '2' } };
    },
  };
}
