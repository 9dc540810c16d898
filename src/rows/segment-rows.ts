import type { BufferPool } from '../buffer-pool.ts';
import type { SegmentMonth } from './month.ts';
import { openSessions } from './session-rows.ts';
import type { PlacedRow } from './single-rows.ts';
import { openUsage } from './usage-rows.ts';

/** The rows of a segment, as ClickHouse gets them: a month at a time, which is one partition. */
export interface SegmentRows<P extends Payload = Payload> {
  /** In their order. */
  readonly months: readonly SegmentMonth[];
  /**
   * The rows of a month without the rejected ones, in what is one INSERT. Rows go by their positions
   * among those of the month, in the order of the stream: that never changes.
   */
  payload(month: SegmentMonth, rejected: ReadonlySet<number>): P;
  /** The rows of a month without the rejected ones, each alone. */
  singleRows(month: SegmentMonth, rejected: ReadonlySet<number>): PlacedRow[];
}

export type Payload = UsagePayload | SessionPayload;

/** Usage rows in the order of the table, by column. */
export interface UsagePayload {
  format: 'Native';
  rows: number;
  bytes: Buffer;
  /** Where in `bytes` the values are that count. */
  columns: Record<'subscriptionId' | 'bytesUp' | 'bytesDown', PayloadColumn>;
}

/** Little-endian numbers of `width` bytes each. */
export interface PayloadColumn {
  at: number;
  width: 4 | 8;
}

export interface SessionPayload {
  format: 'RowBinary';
  rows: number;
  bytes: Buffer;
}

/** Outbound rows, packed: they end in Postgres. */
export interface OutboundPayload {
  format: 'outbound';
  rows: number;
  bytes: Buffer;
}

/** @throws CoreError SEGMENT_ROWS_LOST where the block is not what was sealed. */
export function openSegment(
  segment: { id: number; rows: number },
  kind: 'usage' | 'session',
  block: Buffer,
  buffers: BufferPool,
): SegmentRows {
  if (kind === 'session') return openSessions(block, segment.id);
  const { rows, id: segmentId } = segment;
  return openUsage({ block, rows, segmentId }, buffers.take);
}
