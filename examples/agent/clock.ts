/** A clock of the machine that is further off from Core's than this is not believed. */
export const skewMsMax = 60_000;

/** The time that usage and sessions are recorded at. */
export interface Clock {
  /** Milliseconds since the epoch. */
  nowMs(): number;
  /** Takes the `Date` header of an answer of Core. */
  heard(date: string | null): void;
}

interface Sources {
  wallMs: () => number;
  /** Goes on evenly, whatever happens to the wall clock. */
  steadyMs: () => number;
}

const ownSources: Sources = { wallMs: () => Date.now(), steadyMs: () => performance.now() };

/**
 * The machine's clock, as long as it agrees with Core's. A machine may start in 1970, and somebody may set its
 * clock years ahead. Core refuses a post with such a time as a whole, so its bytes would never count. If the
 * machine's clock jumps, time goes on from what Core said last.
 */
export function createClock({ wallMs, steadyMs }: Sources = ownSources): Clock {
  let known = { atMs: wallMs(), steadyMs: steadyMs() };
  return {
    nowMs() {
      const wall = wallMs();
      const expected = known.atMs + (steadyMs() - known.steadyMs);
      return Math.abs(wall - expected) <= skewMsMax ? wall : Math.round(expected);
    },
    heard(date) {
      const atMs = Date.parse(date ?? '');
      if (!Number.isNaN(atMs)) known = { atMs, steadyMs: steadyMs() };
    },
  };
}
