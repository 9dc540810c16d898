import type pg from 'pg';
import { decodeBody } from '../../accept/decode.ts';
import { registerNodeSchema } from '../../contract/node.ts';
import { CoreError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { RegistrationLimit } from '../../nodes/minute-limits.ts';
import { registerNode } from '../../nodes/registration.ts';
import { json, type Route } from '../route.ts';

/** POST /node/register: trades a registration code for an auth key. */
export function registerRoute(deps: {
  pool: pg.Pool;
  limit: RegistrationLimit;
  log: Logger;
}): Route {
  return {
    method: 'POST',
    path: '/node/register',
    authenticated: false,
    // Five short strings fit. A sender without a key gets little memory.
    bodyBytesMax: 16_384,
    async handle(request) {
      const dto = decodeBody(registerNodeSchema, request.body);
      try {
        const registered = await registerNode(deps.pool, dto);
        deps.log.info({ nodeId: registered.nodeId, requestId: request.requestId }, 'registered');
        return json(200, registered);
      } catch (thrown) {
        if (thrown instanceof CoreError && thrown.code === 'REGISTRATION_REFUSED') {
          await deps.limit.recordFailure(request.address);
        }
        throw thrown;
      }
    },
  };
}
