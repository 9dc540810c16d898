/** A partition of the tables of rows, and the times that belong to it. */
export interface Month {
  /** As ClickHouse names it: toYYYYMM of the row's time. */
  yyyymm: number;
  /** Seconds since 1970, the end exclusive. */
  startSeconds: number;
  endSeconds: number;
}

/** The month that a time is in, in UTC. */
export function monthOf(seconds: number): Month {
  const date = new Date(seconds * 1_000);
  const year = date.getUTCFullYear();
  const month = date.getUTCMonth();
  return {
    yyyymm: year * 100 + month + 1,
    startSeconds: Date.UTC(year, month) / 1_000,
    endSeconds: Date.UTC(year, month + 1) / 1_000,
  };
}

/** A month of a segment, and how many of its rows are of it. */
export interface SegmentMonth extends Month {
  rows: number;
}

export function isIn(month: Month, seconds: number): boolean {
  return seconds >= month.startSeconds && seconds < month.endSeconds;
}

/** Counts the rows of a segment by month. Rows that follow one another are nearly always of the same. */
export function createMonthCounts() {
  const months = new Map<number, SegmentMonth>();
  let last: SegmentMonth | undefined;
  return {
    /** Counts a row of that time, and returns its month: for rows of one month always the same object. */
    count(seconds: number): SegmentMonth {
      if (last === undefined || !isIn(last, seconds)) {
        const month = monthOf(seconds);
        last = months.get(month.yyyymm) ?? { ...month, rows: 0 };
        months.set(month.yyyymm, last);
      }
      last.rows += 1;
      return last;
    },
    /** In their order. */
    list: (): SegmentMonth[] => [...months.values()].sort((a, b) => a.yyyymm - b.yyyymm),
  };
}
