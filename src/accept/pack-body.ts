import type { IngestSchemas } from '../contract/node.ts';
import { type PackedRows, packOutbounds, packSessions, packUsage } from '../rows/pack.ts';
import type { Kind } from '../spool/streams.ts';
import { decodeBody } from './decode.ts';

/**
 * Decodes a body by its contract and packs its rows.
 * @throws CoreError MALFORMED_JSON or VALIDATION_FAILED.
 */
export function packBody(
  schemas: IngestSchemas,
  { kind, nodeId, body }: { kind: Kind; nodeId: number; body: Uint8Array },
): PackedRows {
  if (kind === 'usage') {
    const { entries } = decodeBody(schemas.usage, body);
    return { rows: entries.length, bytes: packUsage(nodeId, entries) };
  }
  if (kind === 'outbound') {
    const { items } = decodeBody(schemas.outbound, body);
    return { rows: items.length, bytes: packOutbounds(nodeId, items) };
  }
  const { events } = decodeBody(schemas.session, body);
  return { rows: events.length, bytes: packSessions(nodeId, events) };
}
