/**
 * When a run looks at its stream, and when it settles the batch that it gathers. Nothing here reads a
 * clock or waits: the run gives the time, on a clock that never goes back.
 */

/** What the pace has to know of a batch: since when it gathers, and how much. */
interface Gathered {
  openedAtMs: number;
  /** Bytes of its stream entries in Redis. */
  bytes: number;
  /** `size` is how many counters its rows change. */
  sums: { readonly size: number };
}

/** What a look at the stream found. */
export interface Look {
  rows: number;
  /** An earlier run left this segment, so stream entries behind it may have waited since then. */
  isLeftOver: boolean;
}

export interface PaceBounds {
  segmentRowsMax: number;
  /** The least time that a batch gathers segments. */
  groupMsMin: number;
  /**
   * A batch's stream entries stay in Redis until it is settled, so it is due once they take this
   * much.
   */
  groupBytesMax: number;
}

export interface Pace {
  /** Whether much is coming in, by what the last look found. */
  readonly isBusy: boolean;
  /** Whether the last segment that was found has probably left more in the stream. */
  readonly isMore: boolean;
  /** How long the run may wait before it has something to do; 0 if it has something to do now. */
  waitMs(batch: Gathered | undefined, nowMs: number): number;
  /**
   * Whether to look at the stream now. Always true without a batch, because then there is nothing
   * else to do.
   */
  isTimeToLook(batch: Gathered | undefined, nowMs: number): boolean;
  /** Notes what a look found that began at `atMs`; undefined if the stream has nothing new. */
  noteLook(found: Look | undefined, atMs: number): void;
  /** How long the batch may still gather segments; settle it at 0 or less. */
  dueInMs(batch: Gathered, nowMs: number): number;
}

/**
 * The time from the start of one look to the start of the next while a batch gathers. It counts from
 * the start, so a slow insert makes nobody wait twice. Each look may make a segment, and an insert
 * costs ClickHouse 60 to 80 ms of CPU with its later merges, however small it is. While much is
 * coming in the rows themselves cost far more than that, so looks come twice as often and rows are
 * seen sooner.
 */
const lookEveryMs = { busy: 500, quiet: 1_000 };
/** Much is coming in if a segment has at least this share of the largest one's rows. */
const busyShare = 0.125;
/** A segment with more than this share of the largest one's rows has probably left more in the stream. */
const moreShare = 0.5;
/**
 * How long a batch waits for each counter that it changes: ten times as long as the update takes. So
 * settling takes at most a tenth of a core a stream, and a batch that changes few counters is settled
 * at once.
 */
const waitMsPerCounter = 0.05;
/** The longest that a batch waits for its counters. */
const groupMsMax = { busy: 10_000, quiet: 1_000 };
/** A batch's sums lie in memory: 32 bytes a counter, and as much again while rows are added. */
const countersMax = 500_000;

export function createPace({ segmentRowsMax, groupMsMin, groupBytesMax }: PaceBounds): Pace {
  let lookAtMs = 0;
  let isBusy = false;
  let isMore = true;

  const isTimeToLook: Pace['isTimeToLook'] = (batch, nowMs) =>
    batch === undefined || nowMs >= lookAtMs;

  const dueInMs: Pace['dueInMs'] = ({ openedAtMs, bytes, sums }, nowMs) => {
    if (bytes >= groupBytesMax || sums.size >= countersMax) return 0;
    const worthMs = Math.min(sums.size * waitMsPerCounter, groupMsMax[isBusy ? 'busy' : 'quiet']);
    return openedAtMs + Math.max(worthMs, groupMsMin) - nowMs;
  };

  return {
    get isBusy() {
      return isBusy;
    },
    get isMore() {
      return isMore;
    },
    waitMs(batch, nowMs) {
      if (batch === undefined || isTimeToLook(batch, nowMs)) return 0;
      const dueMs = dueInMs(batch, nowMs);
      return dueMs <= 0 ? 0 : Math.max(1, Math.min(dueMs, lookAtMs - nowMs));
    },
    isTimeToLook,
    noteLook(found, atMs) {
      isBusy = found !== undefined && found.rows >= segmentRowsMax * busyShare;
      if (found !== undefined) isMore = found.isLeftOver || found.rows > segmentRowsMax * moreShare;
      const looksAgainAtOnce = found !== undefined && isMore;
      lookAtMs = looksAgainAtOnce ? atMs : atMs + lookEveryMs[isBusy ? 'busy' : 'quiet'];
    },
    dueInMs,
  };
}
