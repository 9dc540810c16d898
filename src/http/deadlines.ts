/** What must end in time. `before`, `after` and `addedAt` belong to the list that holds it. */
export interface Expiring {
  expire(): void;
  before: Expiring | undefined;
  after: Expiring | undefined;
  /** The tick at which it was added; -1 while it is in no list. */
  addedAt: number;
}

/**
 * One time limit for many items. An item that is still in the list after the limit expires: at most a
 * quarter of the limit late, and never more than a second. The list is linked through its items,
 * because most bodies arrive at once and a timer for each would cost more than everything else about
 * them. A Map would allocate again every few items.
 */
export interface Deadlines {
  add(item: Expiring): void;
  /** Does nothing if the item is no longer in the list. */
  delete(item: Expiring): void;
  close(): void;
}

/** Checks per time limit. A limit of more than four seconds gets one check a second. */
const ticksPerLimit = 4;
const tickMsMax = 1_000;

export function createDeadlines(secondsMax: number): Deadlines {
  const tickMs = Math.min(tickMsMax, (secondsMax * 1_000) / ticksPerLimit);
  const ticksMax = Math.ceil((secondsMax * 1_000) / tickMs);
  // The order of adding is the order of the deadlines, since all items have the same limit.
  let oldest: Expiring | undefined;
  let newest: Expiring | undefined;
  let ticks = 0;

  const remove = (item: Expiring): void => {
    if (item.addedAt < 0) return;
    if (item.before === undefined) oldest = item.after;
    else item.before.after = item.after;
    if (item.after === undefined) newest = item.before;
    else item.after.before = item.before;
    item.before = undefined;
    item.after = undefined;
    item.addedAt = -1;
  };
  const timer = setInterval(() => {
    ticks += 1;
    // Items added between ticks get one extra tick.
    while (oldest !== undefined && ticks - oldest.addedAt > ticksMax) {
      const item = oldest;
      remove(item);
      item.expire();
    }
  }, tickMs);
  timer.unref();
  return {
    add(item) {
      item.addedAt = ticks;
      item.before = newest;
      if (newest === undefined) oldest = item;
      else newest.after = item;
      newest = item;
    },
    delete: remove,
    close: () => clearInterval(timer),
  };
}
