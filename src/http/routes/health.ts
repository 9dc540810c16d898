import type { Readiness } from '../../stores/readiness.ts';
import { json, okReply, type Route } from '../route.ts';

/** GET /healthz: the process lives. */
export function healthzRoute(): Route {
  return { method: 'GET', path: '/healthz', authenticated: false, handle: () => okReply };
}

/** GET /readyz: 200 while every store answers, else 503 naming those that are away. */
export function readyzRoute(deps: { readiness: Readiness }): Route {
  return {
    method: 'GET',
    path: '/readyz',
    authenticated: false,
    async handle() {
      const away = await deps.readiness.storesAway();
      if (away.length === 0) return json(200, { ok: true });
      const reply = json(503, {
        error: { code: 'STORE_UNAVAILABLE', message: `Not available: ${away.join(', ')}` },
        away,
      });
      return { ...reply, headers: { ...reply.headers, 'Retry-After': '2' } };
    },
  };
}
