import type { SegmentMonth } from './month.ts';
import type { PlacedRow } from './single-rows.ts';

/** The rows of a segment, by month: ClickHouse gets one INSERT for each, which is one partition. */
export interface SegmentRows<P extends Payload = Payload> {
  /** In ascending order. */
  readonly months: readonly SegmentMonth[];
  /**
   * What the INSERT of a month sends: its rows without the rejected ones. `rejected` has their
   * positions among the rows of the month, in the order of the stream, which never changes.
   */
  payload(month: SegmentMonth, rejected: ReadonlySet<number>): P;
  /** The same rows, each alone. */
  singleRows(month: SegmentMonth, rejected: ReadonlySet<number>): PlacedRow[];
}

export type Payload = UsagePayload | SessionPayload;

/** Usage rows by column, in the order of the table. */
export interface UsagePayload {
  format: 'Native';
  rows: number;
  bytes: Buffer;
  /** Where in `bytes` the columns lie that settle needs. */
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

/** Outbound rows, packed: they are only settled, never inserted. */
export interface OutboundPayload {
  format: 'outbound';
  rows: number;
  bytes: Buffer;
}
