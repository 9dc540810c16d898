import type pg from 'pg';
import { decodeBody } from '../../accept/decode.ts';
import { nodeConfigAppliedSchema } from '../../contract/node.ts';
import { recordApplied } from '../../nodes/reports.ts';
import { callerOf, okReply, type Route } from '../route.ts';

/** POST /node/config/applied: the node runs this revision now. */
export function configAppliedRoute(deps: { pool: pg.Pool }): Route {
  return {
    method: 'POST',
    path: '/node/config/applied',
    authenticated: true,
    bodyBytesMax: 1_024,
    async handle(request) {
      const { revision } = decodeBody(nodeConfigAppliedSchema, request.body);
      await recordApplied(deps.pool, callerOf(request).nodeId, revision);
      return okReply;
    },
  };
}
