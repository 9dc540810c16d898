import { nodeHeartbeatSchema } from '../../contract/node.ts';
import { decodeBody } from '../../ingest/decode.ts';
import type { Heartbeats } from '../../nodes/heartbeat.ts';
import { callerOf, json, type Route } from '../route.ts';

/** POST /node/heartbeat: the node lives, and asks whether it runs what it should. */
export function heartbeatRoute(deps: { heartbeats: Heartbeats }): Route {
  return {
    method: 'POST',
    path: '/node/heartbeat',
    authenticated: true,
    handle(request) {
      const node = callerOf(request);
      const dto = decodeBody(nodeHeartbeatSchema, request.body);
      deps.heartbeats.seen(node.nodeId, dto.ip, dto.revision);
      return json(200, { ok: true, needSync: dto.revision !== node.revision });
    },
  };
}
