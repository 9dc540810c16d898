/** Whatever has to end in time: a link of the list that keeps it. The fields are the list's. */
export interface Expiring {
  expire(): void;
  before: Expiring | undefined;
  after: Expiring | undefined;
  /** The look before which it came; -1 where it is in no list. */
  since: number;
}

/**
 * One time limit that many things share: `expire` is called on what is still there after it, late by
 * a quarter of it at most, and never by more than a second. A timer for each would cost more than all
 * else about a small body, which is there at once; a Map allocates anew every few that come and go.
 */
export interface Deadlines {
  add(one: Expiring): void;
  /** Nothing happens where it is not in the list any more. */
  delete(one: Expiring): void;
  close(): void;
}

/** So many looks make up the limit, unless they would be more than a second apart. */
const looksMin = 4;
const lookMsMax = 1_000;

export function createDeadlines(secondsMax: number): Deadlines {
  const lookMs = Math.min(lookMsMax, (secondsMax * 1_000) / looksMin);
  const looksMax = Math.ceil((secondsMax * 1_000) / lookMs);
  // In the order of their deadlines, since all have the same time.
  let oldest: Expiring | undefined;
  let newest: Expiring | undefined;
  let looks = 0;

  const remove = (one: Expiring): void => {
    if (one.since < 0) return;
    if (one.before === undefined) oldest = one.after;
    else one.before.after = one.after;
    if (one.after === undefined) newest = one.before;
    else one.after.before = one.before;
    one.before = undefined;
    one.after = undefined;
    one.since = -1;
  };
  const timer = setInterval(() => {
    looks += 1;
    // What came between two looks had not the whole of the first one.
    while (oldest !== undefined && looks - oldest.since > looksMax) {
      const one = oldest;
      remove(one);
      one.expire();
    }
  }, lookMs);
  timer.unref();
  return {
    add(one) {
      one.since = looks;
      one.before = newest;
      if (newest === undefined) oldest = one;
      else newest.after = one;
      newest = one;
    },
    delete: remove,
    close: () => clearInterval(timer),
  };
}
