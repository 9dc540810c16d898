import { createDecodeMemory } from '../../accept/decode.ts';
import { nodeHeartbeatSchema } from '../../contract/node.ts';
import type { Heartbeats } from '../../nodes/heartbeat.ts';
import { callerOf, constantJson, type Route } from '../route.ts';

/** Enough for the different heartbeats of a whole fleet: an address and a revision each. */
const remembered = { bodiesMax: 20_000, bytesMax: 128 };

/** POST /node/heartbeat: the node is alive, and asks whether it should sync its configuration. */
export function heartbeatRoute(deps: { heartbeats: Heartbeats }): Route {
  const decode = createDecodeMemory(nodeHeartbeatSchema, remembered);
  const inSync = constantJson(200, { ok: true, needSync: false });
  const needsSync = constantJson(200, { ok: true, needSync: true });
  return {
    method: 'POST',
    path: '/node/heartbeat',
    authenticated: true,
    bodyBytesMax: 4_096,
    readsAtOnce: true,
    handle(request) {
      const node = callerOf(request);
      const dto = decode(request.body);
      deps.heartbeats.seen(node.nodeId, dto.ip, dto.revision, dto);
      return dto.revision === node.revision ? inSync : needsSync;
    },
  };
}
