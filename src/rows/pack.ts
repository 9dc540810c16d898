import { sessionEventTypes, vpnProtocols } from '../contract/enums.ts';
import type { OutboundItem, SessionEvent, UsageEntry } from '../contract/node.ts';

/**
 * Packs entries to rows of ClickHouse's RowBinary, little endian. Usage rows have a fixed length;
 * session and outbound rows end with a text, so their length varies. No later step parses JSON: the
 * spool joins rows as bytes. The segment of a row is zero until the worker writes it.
 *
 * Source: https://clickhouse.com/docs/interfaces/formats/RowBinary
 */

/** The packed rows of one post. */
export interface PackedRows {
  rows: number;
  bytes: Buffer;
}

/** How many values 32 bits have. */
const two32 = 4_294_967_296;

/** The columns of the table `usage`, in the order that packUsage writes them. */
export const usageColumns = [
  'node_id',
  'node_protocol_id',
  'user_id',
  'subscription_id',
  'bytes_up',
  'bytes_down',
  'recorded_at',
  'segment',
] as const;

/** Offsets in a usage row, in bytes; assembly/row.ts repeats them. */
export const usageRow = {
  nodeId: 0,
  nodeProtocolId: 4,
  userId: 12,
  subscriptionId: 20,
  bytesUp: 28,
  bytesDown: 36,
  recordedAt: 44,
  segment: 48,
  length: 56,
} as const;

/** The columns of the table `session_events`, in the order that packSessions writes them. */
export const sessionColumns = [
  'segment',
  'node_id',
  'user_id',
  'protocol',
  'event_type',
  'occurred_at',
  'ip_address',
] as const;

/** Offsets in a session row, in bytes. The address comes last: its length as a varint, then UTF-8. */
export const sessionRow = {
  segment: 0,
  nodeId: 8,
  userId: 12,
  protocol: 20,
  eventType: 21,
  occurredAt: 22,
  ipAddress: 30,
} as const;

/** Offsets in an outbound row, in bytes. The tag comes last: its length in 16 bits, then UTF-8. */
export const outboundRow = { nodeId: 0, bytesUp: 4, bytesDown: 12, tag: 20 } as const;

export function setUint64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value % two32, true);
  view.setUint32(offset + 4, Math.floor(value / two32), true);
}

/**
 * A view to read and write numbers through. That costs an instruction or two, and a Buffer's own methods
 * cost a function call each, which matters at a million rows a second.
 */
export function viewOf(packed: Buffer): DataView {
  return new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
}

/** A row takes 56 bytes. `recordedAt` is cut to the second; an entry without a subscription has 0. */
export function packUsage(nodeId: number, entries: readonly UsageEntry[]): Buffer {
  const block = Buffer.alloc(entries.length * usageRow.length);
  const view = viewOf(block);
  let at = 0;
  for (const entry of entries) {
    view.setUint32(at + usageRow.nodeId, nodeId, true);
    setUint64(view, at + usageRow.nodeProtocolId, entry.nodeProtocolId);
    setUint64(view, at + usageRow.userId, entry.userId);
    setUint64(view, at + usageRow.subscriptionId, entry.subscriptionId ?? 0);
    setUint64(view, at + usageRow.bytesUp, entry.bytesUp);
    setUint64(view, at + usageRow.bytesDown, entry.bytesDown);
    view.setUint32(at + usageRow.recordedAt, Math.floor(entry.recordedAt / 1_000), true);
    at += usageRow.length;
  }
  return block;
}

/** An event without an address gets an empty one. */
export function packSessions(nodeId: number, events: readonly SessionEvent[]): Buffer {
  const blocks: Buffer[] = [];
  for (const event of events) {
    const address = Buffer.from(event.ipAddress ?? '', 'utf8');
    const lengthBytes = varint(address.length);
    const row = Buffer.alloc(sessionRow.ipAddress);
    const view = viewOf(row);
    view.setUint32(sessionRow.nodeId, nodeId, true);
    setUint64(view, sessionRow.userId, event.userId);
    view.setInt8(sessionRow.protocol, vpnProtocols.indexOf(event.protocol) + 1);
    view.setInt8(sessionRow.eventType, sessionEventTypes.indexOf(event.eventType) + 1);
    view.setBigInt64(sessionRow.occurredAt, BigInt(event.occurredAt), true);
    blocks.push(row, lengthBytes, address);
  }
  return Buffer.concat(blocks);
}

/** The layout is Core's own: outbound rows are never inserted, and only settle reads them. */
export function packOutbounds(nodeId: number, items: readonly OutboundItem[]): Buffer {
  const blocks: Buffer[] = [];
  for (const item of items) {
    const tag = Buffer.from(item.tag, 'utf8');
    const row = Buffer.alloc(outboundRow.tag + 2);
    const view = viewOf(row);
    view.setUint32(outboundRow.nodeId, nodeId, true);
    setUint64(view, outboundRow.bytesUp, item.bytesUp);
    setUint64(view, outboundRow.bytesDown, item.bytesDown);
    view.setUint16(outboundRow.tag, tag.length, true);
    blocks.push(row, tag);
  }
  return Buffer.concat(blocks);
}

/** A number of 32 bits in LEB128, as ClickHouse's formats write lengths. */
export function varint(value: number): Buffer {
  if (value < 128) return Buffer.of(value);
  return Buffer.concat([Buffer.of((value & 127) | 128), varint(value >>> 7)]);
}

/** Byte length of the session row that starts at `at`. */
export function sessionRowLength(packed: Buffer, at: number): number {
  const start = at + sessionRow.ipAddress;
  const low = packed[start] ?? 0;
  if (low < 128) return sessionRow.ipAddress + 1 + low;
  return sessionRow.ipAddress + 2 + ((low & 127) | ((packed[start + 1] ?? 0) << 7));
}

/** Seconds since 1970 of the oldest of some session rows; infinite if there is none. */
export function oldestSessionSeconds(packed: Buffer): number {
  let oldestMs = Number.POSITIVE_INFINITY;
  for (let at = 0; at < packed.length; at += sessionRowLength(packed, at)) {
    oldestMs = Math.min(oldestMs, Number(packed.readBigInt64LE(at + sessionRow.occurredAt)));
  }
  return Math.floor(oldestMs / 1_000);
}

/** Byte length of the outbound row that starts at `at`. */
export function outboundRowLength(packed: Buffer, at: number): number {
  return outboundRow.tag + 2 + packed.readUInt16LE(at + outboundRow.tag);
}
