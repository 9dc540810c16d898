import type pg from 'pg';
import { decodeBody } from '../../accept/decode.ts';
import { nodeErrorSchema } from '../../contract/node.ts';
import type { ErrorLimit } from '../../nodes/minute-limits.ts';
import { reportNodeError } from '../../publish/faulty.ts';
import { callerOf, okReply, type Route } from '../route.ts';

/** POST /node/error: something failed on the node. */
export function nodeErrorRoute(deps: {
  pool: pg.Pool;
  limit: ErrorLimit;
  rollsBack: boolean;
}): Route {
  return {
    method: 'POST',
    path: '/node/error',
    authenticated: true,
    bodyBytesMax: 131_072,
    async handle(request) {
      const { nodeId } = callerOf(request);
      await deps.limit.count(nodeId);
      const dto = decodeBody(nodeErrorSchema, request.body);
      await reportNodeError(deps.pool, nodeId, dto, deps);
      return okReply;
    },
  };
}
