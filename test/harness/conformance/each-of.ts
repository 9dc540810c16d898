/** Does the work for all, with at most so many at the same time. */
export async function eachOf<T>(
  all: readonly T[],
  parallel: number,
  work: (one: T) => Promise<void>,
): Promise<void> {
  const waiting = [...all];
  const next = async (): Promise<void> => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) await work(one);
  };
  await Promise.all(Array.from({ length: parallel }, next));
}
