/** Entries a second over at least `lengthMs`. `run` does its work once and returns its entries. */
export function timeOne(run: () => number, lengthMs: number): number {
  const startedMs = performance.now();
  let entries = 0;
  let nowMs = startedMs;
  while (nowMs - startedMs < lengthMs) {
    // Reading the clock for each body of one entry would cost too much.
    for (let turn = 0; turn < 8; turn += 1) entries += run();
    nowMs = performance.now();
  }
  return (entries * 1_000) / (nowMs - startedMs);
}

/** The same list, beginning with another element. Rounds use it to change their order. */
export function rotated<T>(list: readonly T[], by: number): T[] {
  const at = list.length === 0 ? 0 : by % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
}

/** A function that returns one value after another, over and over. */
export function turns<T>(values: readonly T[]): () => T {
  let at = -1;
  return () => {
    at = (at + 1) % values.length;
    return values[at] as T;
  };
}
