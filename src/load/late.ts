import { setTimeout as delay } from 'node:timers/promises';
import type { LoadDeps } from './load-stream.ts';

/**
 * Late streams hold posts with old rows (src/spool/spool.ts). Each month of a segment is an insert,
 * and a part that ClickHouse has to merge. A post of a few kilobytes may have a row of each month
 * since 2020. The embedded ClickHouse runs one insert at a time, so other streams would wait for all
 * of these. Therefore a worker rarely looks at a late stream, and loads what many posts brought as
 * one segment. It pauses between the inserts of the months.
 */

/**
 * A pause takes this many times as long as the insert before it. Late inserts then take a quarter of
 * the time of a ClickHouse that runs one insert at a time.
 */
const pauseFactor = 3;
/**
 * The longest pause. It keeps a segment of many months from taking many minutes if each insert takes
 * seconds. It is far below the silence after which a run loses its stream (hold.ts).
 */
const pauseMsMax = 1_000;
/**
 * A segment's rows are expanded again for nearly every month, because other streams use the same
 * memory during the pause. Expanding this many rows blocks the worker's thread for some milliseconds.
 */
const segmentRowsMax = 100_000;
/** A run ends after this many segments, because a worker runs one late stream at a time. */
const segmentsMax = 8;

/** What a run on a late stream works with. Once `stopping` is aborted the run ends as soon as it can. */
export function lateLoad(
  deps: LoadDeps & { lateGroupBytesMax: number },
  stopping: AbortSignal,
): LoadDeps {
  return {
    ...deps,
    segmentRowsMax: Math.min(deps.segmentRowsMax, segmentRowsMax),
    groupBytesMax: deps.lateGroupBytesMax,
    // A few posts that come during the run wait for the next one, so that they share its segment.
    goesOn: (segments, isMore) => !stopping.aborted && isMore && segments < segmentsMax,
    pauseBetweenMonths: async (insertMs) => {
      const pauseMs = Math.min(insertMs * pauseFactor, pauseMsMax);
      await delay(pauseMs, undefined, { signal: stopping }).catch(() => undefined);
    },
  };
}
