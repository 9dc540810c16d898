import { fingerprintOf } from '../../accept/fingerprint.ts';
import { identify } from '../../accept/idempotency.ts';
import { type LargeBodies, smallBodyBytesMax } from '../../accept/large-bodies.ts';
import { packBody } from '../../accept/pack-body.ts';
import type { Packed, Scanned, UsageScanner } from '../../accept/usage-scanner.ts';
import type { IngestSchemas } from '../../contract/node.ts';
import type { Spool } from '../../spool/spool.ts';
import type { Kind } from '../../spool/streams.ts';
import { callerOf, okReply, type Reply, type Route, type RouteRequest } from '../route.ts';

export interface IngestDeps {
  schemas: IngestSchemas;
  usageScanner: UsageScanner;
  largeBodies: LargeBodies;
  spool: Spool;
}

/** POST /node/usage: per-minute usage rows. */
export function usageRoute(deps: IngestDeps): Route {
  return ingestRoute(deps, 'usage', '/node/usage', (nodeId, body) =>
    deps.usageScanner.scan(nodeId, body),
  );
}

/** POST /node/outbound-usage: traffic by outbound tag since the last post. */
export function outboundUsageRoute(deps: IngestDeps): Route {
  return ingestRoute(deps, 'outbound', '/node/outbound-usage');
}

/** POST /node/session-events: who came online and went. */
export function sessionEventsRoute(deps: IngestDeps): Route {
  return ingestRoute(deps, 'session', '/node/session-events');
}

/**
 * The steps every ingest route has: decode and pack, identify, spool, and only then the 200. `scan` is
 * a fast way to the rows; what it is not certain of goes to zod, a large body in a thread.
 */
function ingestRoute(
  deps: IngestDeps,
  kind: Kind,
  path: string,
  scan?: (nodeId: number, body: Uint8Array) => Scanned | undefined,
): Route {
  const store = async (request: RouteRequest, packed: Packed, found: string): Promise<Reply> => {
    const { nodeId } = callerOf(request);
    const header = request.headers.idempotencyKey;
    const { key, fingerprint } = identify({ kind, nodeId, header, fingerprint: found });
    const { rows, bytes } = packed;
    if (rows > 0) await deps.spool.append(kind, nodeId, { key, fingerprint, rows, bytes });
    return okReply;
  };
  const storeLarge = async (request: RouteRequest, body: Uint8Array): Promise<Reply> => {
    const { nodeId } = callerOf(request);
    // The body is there only until the first await.
    const fingerprint = fingerprintOf(body);
    return store(request, await deps.largeBodies.pack({ kind, nodeId, body }), fingerprint);
  };
  const handle = (request: RouteRequest): Promise<Reply> => {
    const { nodeId } = callerOf(request);
    const { body } = request;
    const scanned = scan?.(nodeId, body);
    if (scanned !== undefined) return store(request, scanned, scanned.fingerprint);
    if (body.length > smallBodyBytesMax) return storeLarge(request, body);
    const packed = packBody(deps.schemas, { kind, nodeId, body });
    return store(request, packed, fingerprintOf(body));
  };
  const bodyBytesMax = Number.POSITIVE_INFINITY;
  return { method: 'POST', path, authenticated: true, bodyBytesMax, readsAtOnce: true, handle };
}
