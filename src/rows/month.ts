/** A month in UTC, which is a partition of the tables `usage` and `session_events`. */
export interface Month {
  /** ClickHouse's name of the partition: toYYYYMM of the row's time. */
  yyyymm: number;
  /** Seconds since 1970; the end is exclusive. */
  startSeconds: number;
  endSeconds: number;
}

/** The month of a time in seconds since 1970. */
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

/** A month of a segment, and how many of the segment's rows it has. */
export interface SegmentMonth extends Month {
  rows: number;
}

export function isIn(month: Month, seconds: number): boolean {
  return seconds >= month.startSeconds && seconds < month.endSeconds;
}

/** Counts the rows of a segment by month. It looks at the last month first, since neighbours share it. */
export function createMonthCounts() {
  const months = new Map<number, SegmentMonth>();
  let last: SegmentMonth | undefined;
  return {
    /** Counts a row of this time. Returns its month, the same object for every row of a month. */
    count(seconds: number): SegmentMonth {
      if (last === undefined || !isIn(last, seconds)) {
        const month = monthOf(seconds);
        last = months.get(month.yyyymm) ?? { ...month, rows: 0 };
        months.set(month.yyyymm, last);
      }
      last.rows += 1;
      return last;
    },
    /** In ascending order. */
    list: (): SegmentMonth[] => [...months.values()].sort((a, b) => a.yyyymm - b.yyyymm),
  };
}
