/** Counts events by key, each for a minute from its first event, in the memory of this process. */
interface MinuteCounter {
  /**
   * Counts an event.
   * @returns the seconds until the key may go on if it is over its limit with this one; otherwise 0.
   */
  count(key: string): number;
}

const minuteMs = 60_000;
/** Keys that are remembered. Past it the oldest is forgotten, so its minute begins anew. */
const keysMax = 20_000;

export function createMinuteCounter(
  eventsMax: number,
  nowMs: () => number = () => performance.now(),
): MinuteCounter {
  // A Map keeps the order of insertion, and each key is inserted when its minute begins.
  const minutes = new Map<string, { sinceMs: number; events: number }>();
  return {
    count(key) {
      const now = nowMs();
      let minute = minutes.get(key);
      if (minute === undefined || now - minute.sinceMs >= minuteMs) {
        minutes.delete(key);
        const [oldest] = minutes.keys();
        if (minutes.size >= keysMax && oldest !== undefined) minutes.delete(oldest);
        minute = { sinceMs: now, events: 0 };
        minutes.set(key, minute);
      }
      minute.events += 1;
      if (minute.events <= eventsMax) return 0;
      return Math.max(1, Math.ceil((minute.sinceMs + minuteMs - now) / 1_000));
    },
  };
}
