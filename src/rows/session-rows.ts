import { createMonthCounts, type SegmentMonth } from './month.ts';
import { sessionRow, sessionRowLength, setUint64, viewOf } from './pack.ts';
import type { SegmentRows, SessionPayload } from './segment-rows.ts';
import { splitRows } from './single-rows.ts';

/** Neighbouring rows of the same month. */
interface MonthPart {
  month: SegmentMonth;
  bytes: Buffer;
}

/**
 * The session rows of a segment, packed. Opening them writes the segment's id into each row, in place.
 * Nearly always all rows are of one month; then nothing is copied.
 */
export function openSessionRows(blocks: Buffer, segmentId: number): SegmentRows<SessionPayload> {
  const { months, parts } = stampAndSplit(blocks, segmentId);
  const bytesOf = ({ yyyymm }: SegmentMonth): Buffer =>
    joined(parts.filter(({ month }) => month.yyyymm === yyyymm));
  const singleRows: SegmentRows['singleRows'] = (month, rejected) =>
    splitRows('session', bytesOf(month)).filter(({ position }) => !rejected.has(position));
  return {
    months,
    payload(month, rejected) {
      if (rejected.size === 0) {
        return { format: 'RowBinary', rows: month.rows, bytes: bytesOf(month) };
      }
      const kept = singleRows(month, rejected);
      return { format: 'RowBinary', rows: kept.length, bytes: joined(kept) };
    },
    singleRows,
  };
}

function joined(parts: readonly { bytes: Buffer }[]): Buffer {
  const sole = parts.length === 1 ? parts[0] : undefined;
  return sole?.bytes ?? Buffer.concat(parts.map(({ bytes }) => bytes));
}

function stampAndSplit(
  blocks: Buffer,
  segmentId: number,
): { months: SegmentMonth[]; parts: MonthPart[] } {
  const view = viewOf(blocks);
  const counts = createMonthCounts();
  const parts: MonthPart[] = [];
  let month: SegmentMonth | undefined;
  let partStart = 0;
  const endPart = (end: number): void => {
    if (month !== undefined) parts.push({ month, bytes: blocks.subarray(partStart, end) });
    partStart = end;
  };
  for (let at = 0; at < blocks.length; at += sessionRowLength(blocks, at)) {
    setUint64(view, at + sessionRow.segment, segmentId);
    const occurredAt = view.getBigInt64(at + sessionRow.occurredAt, true);
    const next = counts.count(Math.floor(Number(occurredAt) / 1_000));
    if (next !== month) endPart(at);
    month = next;
  }
  endPart(blocks.length);
  return { months: counts.list(), parts };
}
