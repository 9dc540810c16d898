/** Runs `work` for every item, at most `atOnceMax` at a time. The first failure rejects. */
export async function eachBounded<T>(
  items: readonly T[],
  atOnceMax: number,
  work: (item: T, index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const runOne = async (): Promise<void> => {
    while (next < items.length) {
      const index = next;
      next += 1;
      await work(items[index] as T, index);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnceMax, items.length) }, runOne));
}
