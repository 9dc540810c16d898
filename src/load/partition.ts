import { sessionRow, sessionRowLength, two32, usageRow, viewOf } from '../ingest/pack.ts';

/** The rows of one segment that belong to one month, stamped with the segment's number. */
export interface Partition {
  /** As ClickHouse names it: toYYYYMM of the row's time. */
  yyyymm: number;
  rows: number;
  bytes: Buffer;
}

interface Layout {
  segment: number;
  length: (block: Buffer, at: number) => number;
  seconds: (view: DataView, at: number) => number;
}

const layouts: Record<'usage' | 'session', Layout> = {
  usage: {
    segment: usageRow.segment,
    length: () => usageRow.length,
    seconds: (view, at) => view.getUint32(at + usageRow.recordedAt, true),
  },
  session: {
    segment: sessionRow.segment,
    length: sessionRowLength,
    seconds: (view, at) =>
      Math.floor(Number(view.getBigInt64(at + sessionRow.occurredAt, true)) / 1_000),
  },
};

interface Month {
  yyyymm: number;
  startSeconds: number;
  endSeconds: number;
}

function monthOf(seconds: number): Month {
  const date = new Date(seconds * 1_000);
  const year = date.getUTCFullYear();
  const month = date.getUTCMonth();
  return {
    yyyymm: year * 100 + month + 1,
    startSeconds: Date.UTC(year, month) / 1_000,
    endSeconds: Date.UTC(year, month + 1) / 1_000,
  };
}

/**
 * Stamps every row of a segment with the segment's number, in place, and splits them by month.
 * Nearly always all rows are of one month: then nothing is copied. Months come in order.
 */
export function partitionRows(
  kind: 'usage' | 'session',
  block: Buffer,
  segmentId: number,
): Partition[] {
  const layout = layouts[kind];
  const view = viewOf(block);
  const segmentLow = segmentId % two32;
  const segmentHigh = Math.floor(segmentId / two32);
  const runs = new Map<number, { rows: number; slices: Buffer[] }>();
  let month: Month | undefined;
  let runStart = 0;
  const closeRun = (end: number): void => {
    if (month !== undefined) runs.get(month.yyyymm)?.slices.push(block.subarray(runStart, end));
    runStart = end;
  };
  for (let at = 0; at < block.length; at += layout.length(block, at)) {
    view.setUint32(at + layout.segment, segmentLow, true);
    view.setUint32(at + layout.segment + 4, segmentHigh, true);
    const seconds = layout.seconds(view, at);
    if (month === undefined || seconds < month.startSeconds || seconds >= month.endSeconds) {
      closeRun(at);
      month = monthOf(seconds);
    }
    const run = runs.get(month.yyyymm);
    if (run === undefined) runs.set(month.yyyymm, { rows: 1, slices: [] });
    else run.rows += 1;
  }
  closeRun(block.length);
  return [...runs]
    .map(([yyyymm, { rows, slices }]) => ({ yyyymm, rows, bytes: joined(slices) }))
    .sort((a, b) => a.yyyymm - b.yyyymm);
}

function joined(slices: readonly Buffer[]): Buffer {
  const sole = slices.length === 1 ? slices[0] : undefined;
  return sole ?? Buffer.concat(slices);
}
