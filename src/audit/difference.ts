/** Something that is not as it should be. Byte sums are decimal text: they may pass 2^53. */
export type Difference =
  | {
      /** A settled segment of which ClickHouse has more or fewer rows than went in. */
      what: 'segment';
      segmentId: number;
      table: string;
      expectedRows: number;
      foundRows: number;
    }
  | {
      /** Rows in ClickHouse of a segment that Postgres does not know. */
      what: 'unknown-segment';
      segmentId: number;
      table: string;
      expectedRows: 0;
      foundRows: number;
    }
  | {
      /** Rows of all segments up to this one that Postgres no longer holds (prune.ts), together. */
      what: 'pruned-segments';
      upToId: number;
      table: string;
      expectedRows: number;
      foundRows: number;
    }
  | {
      /** A subscription whose counters are not the sums of its rows. */
      what: 'subscription';
      subscriptionId: number;
      counterUp: string;
      counterDown: string;
      rowsUp: string;
      rowsDown: string;
    };

/** Differences that are kept in full; the rest is only counted. */
export const detailsMax = 100;

/** Counts differences and keeps the first ones. */
export interface Findings {
  differences: number;
  details: Difference[];
}

export function addDifference(findings: Findings, difference: Difference): void {
  findings.differences += 1;
  if (findings.details.length < detailsMax) findings.details.push(difference);
}
