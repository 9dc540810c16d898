import { createMonthCounts, type SegmentMonth } from './month.ts';
import { sessionRow, sessionRowLength, setUint64, viewOf } from './pack.ts';
import type { SegmentRows, SessionPayload } from './segment-rows.ts';
import { splitRows } from './single-rows.ts';

/** Rows that follow one another and are of one month. */
interface Run {
  month: SegmentMonth;
  bytes: Buffer;
}

/**
 * The session rows of a segment, packed as they came (src/rows/pack.ts). Each is stamped with the
 * segment's number, in place. Nearly always all are of one month: then nothing is copied.
 */
export function openSessions(block: Buffer, segmentId: number): SegmentRows<SessionPayload> {
  const { months, runs } = stampAndSplit(block, segmentId);
  const bytesOf = ({ yyyymm }: SegmentMonth): Buffer =>
    joined(runs.filter(({ month }) => month.yyyymm === yyyymm));
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

function stampAndSplit(block: Buffer, segmentId: number): { months: SegmentMonth[]; runs: Run[] } {
  const view = viewOf(block);
  const counts = createMonthCounts();
  const runs: Run[] = [];
  let month: SegmentMonth | undefined;
  let runStart = 0;
  const endRun = (end: number): void => {
    if (month !== undefined) runs.push({ month, bytes: block.subarray(runStart, end) });
    runStart = end;
  };
  for (let at = 0; at < block.length; at += sessionRowLength(block, at)) {
    setUint64(view, at + sessionRow.segment, segmentId);
    const occurredAt = view.getBigInt64(at + sessionRow.occurredAt, true);
    const next = counts.count(Math.floor(Number(occurredAt) / 1_000));
    if (next !== month) endRun(at);
    month = next;
  }
  endRun(block.length);
  return { months: counts.list(), runs };
}
