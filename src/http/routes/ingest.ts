import type { IngestSchemas } from '../../contract/node.ts';
import { decodeBody } from '../../ingest/decode.ts';
import { fingerprintOf } from '../../ingest/fingerprint.ts';
import { identify } from '../../ingest/idempotency.ts';
import { packOutbounds, packSessions, packUsage } from '../../ingest/pack.ts';
import type { Spool } from '../../ingest/spool.ts';
import type { Kind } from '../../ingest/streams.ts';
import type { Packed, Scanned, UsageScanner } from '../../ingest/usage-scanner.ts';
import { callerOf, okReply, type Reply, type Route, type RouteRequest } from '../route.ts';

export interface IngestDeps {
  schemas: IngestSchemas;
  usageScanner: UsageScanner;
  spool: Spool;
}

/** POST /node/usage: per-minute usage rows. */
export function usageRoute(deps: IngestDeps): Route {
  return ingestRoute(deps, 'usage', '/node/usage', (nodeId, body) => {
    const scanned = deps.usageScanner.scan(nodeId, body);
    if (scanned !== undefined) return scanned;
    const { entries } = decodeBody(deps.schemas.usage, body);
    return { rows: entries.length, bytes: packUsage(nodeId, entries) };
  });
}

/** POST /node/outbound-usage: traffic by outbound tag since the last post. */
export function outboundUsageRoute(deps: IngestDeps): Route {
  return ingestRoute(deps, 'outbound', '/node/outbound-usage', (nodeId, body) => {
    const { items } = decodeBody(deps.schemas.outbound, body);
    return { rows: items.length, bytes: packOutbounds(nodeId, items) };
  });
}

/** POST /node/session-events: who came online and went. */
export function sessionEventsRoute(deps: IngestDeps): Route {
  return ingestRoute(deps, 'session', '/node/session-events', (nodeId, body) => {
    const { events } = decodeBody(deps.schemas.session, body);
    return { rows: events.length, bytes: packSessions(nodeId, events) };
  });
}

/** The steps every ingest route has: decode and pack, identify, spool, and only then the 200. */
function ingestRoute(
  deps: IngestDeps,
  kind: Kind,
  path: string,
  pack: (nodeId: number, body: Uint8Array) => Packed | Scanned,
): Route {
  const handle = async (request: RouteRequest): Promise<Reply> => {
    const { nodeId } = callerOf(request);
    const packed = pack(nodeId, request.body);
    const identity = identify({
      kind,
      nodeId,
      header: request.headers.idempotencyKey,
      fingerprint: 'fingerprint' in packed ? packed.fingerprint : fingerprintOf(request.body),
    });
    const { rows, bytes } = packed;
    const { key, fingerprint } = identity;
    if (rows > 0) await deps.spool.append(kind, nodeId, { key, fingerprint, rows, bytes });
    return okReply;
  };
  const bodyBytesMax = Number.POSITIVE_INFINITY;
  return { method: 'POST', path, authenticated: true, bodyBytesMax, readsAtOnce: true, handle };
}
