/** Something that an audit found wrong. Byte sums are decimal text, because they may pass 2^53. */
export type Difference =
  | {
      /** ClickHouse has more or fewer rows of a settled segment than were inserted. */
      what: 'segment';
      segmentId: number;
      table: string;
      expectedRows: number;
      foundRows: number;
    }
  | {
      /** ClickHouse has rows of a segment that Postgres does not know. */
      what: 'unknown-segment';
      segmentId: number;
      table: string;
      expectedRows: 0;
      foundRows: number;
    }
  | {
      /** ClickHouse has more or fewer rows of all deleted segments together (prune.ts). */
      what: 'pruned-segments';
      upToId: number;
      table: string;
      expectedRows: number;
      foundRows: number;
    }
  | {
      /** The counters of a subscription are not the sums of its rows. */
      what: 'subscription';
      subscriptionId: number;
      counterUp: string;
      counterDown: string;
      rowsUp: string;
      rowsDown: string;
    };

/** How many differences are kept in full; the rest is only counted. */
export const detailsMax = 100;

/** How many differences there are, and the first ones in full. */
export interface Findings {
  differences: number;
  details: Difference[];
}

export function addDifference(findings: Findings, difference: Difference): void {
  findings.differences += 1;
  if (findings.details.length < detailsMax) findings.details.push(difference);
}
