import { sessionEventTypes, vpnProtocols } from '../contract/enums.ts';
import { sessionRow, sessionRowLength, usageRow } from './pack.ts';

/** One packed row, and its position among the segment's rows of the same month. */
export interface PlacedRow {
  position: number;
  bytes: Buffer;
}

/** Packed rows one by one, without a copy. */
export function splitRows(kind: 'usage' | 'session', packed: Buffer): PlacedRow[] {
  const rows: PlacedRow[] = [];
  for (let at = 0; at < packed.length; ) {
    const length = kind === 'usage' ? usageRow.length : sessionRowLength(packed, at);
    rows.push({ position: rows.length, bytes: packed.subarray(at, at + length) });
    at += length;
  }
  return rows;
}

/** A packed row by the names of its columns, for people to read. */
export function decodeRow(kind: 'usage' | 'session', row: Buffer): Record<string, unknown> {
  const uint64 = (offset: number): number => Number(row.readBigUInt64LE(offset));
  if (kind === 'usage') {
    return {
      node_id: row.readUInt32LE(usageRow.nodeId),
      node_protocol_id: uint64(usageRow.nodeProtocolId),
      user_id: uint64(usageRow.userId),
      subscription_id: uint64(usageRow.subscriptionId),
      bytes_up: uint64(usageRow.bytesUp),
      bytes_down: uint64(usageRow.bytesDown),
      recorded_at: new Date(row.readUInt32LE(usageRow.recordedAt) * 1_000).toISOString(),
    };
  }
  const addressStart = sessionRow.ipAddress + ((row[sessionRow.ipAddress] ?? 0) < 128 ? 1 : 2);
  return {
    node_id: row.readUInt32LE(sessionRow.nodeId),
    user_id: uint64(sessionRow.userId),
    protocol: vpnProtocols[row.readInt8(sessionRow.protocol) - 1],
    event_type: sessionEventTypes[row.readInt8(sessionRow.eventType) - 1],
    occurred_at: new Date(Number(row.readBigInt64LE(sessionRow.occurredAt))).toISOString(),
    ip_address: row.toString('utf8', addressStart),
  };
}
