/** Entries a second over at least `lengthMs`; `run` does its work once and returns how many it was. */
export function timeOne(run: () => number, lengthMs: number): number {
  const startedMs = performance.now();
  let entries = 0;
  let nowMs = startedMs;
  while (nowMs - startedMs < lengthMs) {
    // The clock is not read for each single body of one entry.
    for (let turn = 0; turn < 8; turn += 1) entries += run();
    nowMs = performance.now();
  }
  return (entries * 1_000) / (nowMs - startedMs);
}

/** One after the other, for ever. */
export function turns<T>(values: readonly T[]): () => T {
  let at = -1;
  return () => {
    at = (at + 1) % values.length;
    return values[at] as T;
  };
}
