import { setTimeout as delay } from 'node:timers/promises';
import type { LoadDeps } from './load-stream.ts';

/**
 * Late streams hold posts with rows of long ago (src/spool/spool.ts). Each month of a segment is an
 * insert, of which the embedded ClickHouse runs one at a time, and a part that has to be merged. A post
 * of a few kilobytes may have a row of each month since 2020. So that nobody else waits for these
 * inserts, the worker looks at a late stream rarely. What many posts brought is then one segment. Between
 * the inserts of its months the run pauses.
 */

/**
 * A pause is so many times as long as the insert before it: late inserts take a quarter of the time
 * of a ClickHouse that runs one at a time.
 */
const pauseFactor = 3;
/**
 * If inserts take seconds, a pause is shorter than they are: many months would otherwise take many minutes.
 * It is far below the silence after which Postgres ends a run's session (session.ts).
 */
const pauseMsMax = 1_000;
/**
 * Rows are unpacked anew for nearly every month, as other streams use the same memory meanwhile. For this
 * many rows that holds the worker's thread up by some milliseconds.
 */
const segmentRowsMax = 100_000;
/** A run gives its place up after this many segments: all late streams of a worker share one place. */
const segmentsMax = 8;

/** What differs for a late stream. Once `stopping` is aborted, its run ends as soon as it can. */
export function lateLoad(
  deps: LoadDeps & { lateGroupBytesMax: number },
  stopping: AbortSignal,
): LoadDeps {
  return {
    ...deps,
    segmentRowsMax: Math.min(deps.segmentRowsMax, segmentRowsMax),
    groupBytesMax: deps.lateGroupBytesMax,
    // What comes meanwhile is for the next look, unless it is much.
    goesOn: (segments, isMore) => !stopping.aborted && isMore && segments < segmentsMax,
    pace: async (insertMs) => {
      const pauseMs = Math.min(insertMs * pauseFactor, pauseMsMax);
      await delay(pauseMs, undefined, { signal: stopping }).catch(() => undefined);
    },
  };
}
