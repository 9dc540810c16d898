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
