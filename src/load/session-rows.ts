import { sessionRow, sessionRowLength, two32, viewOf } from '../ingest/pack.ts';
import { type Month, monthOf } from './month.ts';
import { splitRows } from './rows.ts';
import type { SegmentMonth, SegmentRows, SessionPayload } from './segment-rows.ts';

/** Rows that follow one another and are of one month. */
interface Run {
  month: SegmentMonth;
  bytes: Buffer;
}

/**
 * The session rows of a segment, packed as they came (src/ingest/pack.ts). Each is stamped with the
 * segment's number, in place. Nearly always all are of one month: then nothing is copied.
 */
export function openSessions(block: Buffer, segmentId: number): SegmentRows<SessionPayload> {
  const runs = stampAndSplit(block, segmentId);
  const bytesOf = ({ yyyymm }: Month): Buffer => {
    const [first, ...others] = runs.filter(({ month }) => month.yyyymm === yyyymm);
    if (first === undefined) return Buffer.alloc(0);
    return others.length === 0 ? first.bytes : joined([first, ...others]);
  };
  const singleRows: SegmentRows['singleRows'] = (month, rejected) =>
    splitRows('session', bytesOf(month)).filter(({ position }) => !rejected.has(position));
  return {
    months: [...new Set(runs.map(({ month }) => month))].sort((a, b) => a.yyyymm - b.yyyymm),
    payload(month, rejected) {
      const kept = rejected.size === 0 ? undefined : singleRows(month, rejected);
      const rows = runs.find((run) => run.month.yyyymm === month.yyyymm)?.month.rows ?? 0;
      return kept === undefined
        ? { format: 'RowBinary', rows, bytes: bytesOf(month) }
        : { format: 'RowBinary', rows: kept.length, bytes: joined(kept) };
    },
    singleRows,
  };
}

function joined(parts: readonly { bytes: Buffer }[]): Buffer {
  return Buffer.concat(parts.map(({ bytes }) => bytes));
}

function stampAndSplit(block: Buffer, segmentId: number): Run[] {
  const view = viewOf(block);
  const [segmentLow, segmentHigh] = [segmentId % two32, Math.floor(segmentId / two32)];
  const months = new Map<number, SegmentMonth>();
  const runs: Run[] = [];
  let month: SegmentMonth | undefined;
  let runStart = 0;
  const endRun = (end: number): void => {
    if (month !== undefined) runs.push({ month, bytes: block.subarray(runStart, end) });
    runStart = end;
  };
  for (let at = 0; at < block.length; at += sessionRowLength(block, at)) {
    view.setUint32(at + sessionRow.segment, segmentLow, true);
    view.setUint32(at + sessionRow.segment + 4, segmentHigh, true);
    const occurredAt = view.getBigInt64(at + sessionRow.occurredAt, true);
    const seconds = Math.floor(Number(occurredAt) / 1_000);
    if (month === undefined || seconds < month.startSeconds || seconds >= month.endSeconds) {
      endRun(at);
      const next = monthOf(seconds);
      month = months.get(next.yyyymm) ?? { ...next, rows: 0 };
      months.set(next.yyyymm, month);
    }
    month.rows += 1;
  }
  endRun(block.length);
  return runs;
}
