/** A source of numbers in [0, 1). The same seed gives the same numbers. */
export type Random = () => number;

/**
 * Mulberry32: small, fast and good enough to shape traffic. Not for secrets.
 *
 * Source: https://gist.github.com/tommyettinger/46a874533244883189143505d203312c
 */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** The seed of one node's source. Neighbouring nodes get unrelated numbers. */
export function nodeSeed(seed: number, nodeIndex: number): number {
  return (Math.imul(seed, 0x9e3779b1) ^ Math.imul(nodeIndex + 1, 0x85ebca6b)) >>> 0;
}

/** An integer from `min` to `max`, both included. */
export function integerIn(random: Random, min: number, max: number): number {
  return min + Math.floor(random() * (max - min + 1));
}

export function pick<T>(random: Random, values: readonly T[]): T {
  return values[integerIn(random, 0, values.length - 1)] as T;
}

export function shuffled<T>(random: Random, values: readonly T[]): T[] {
  const result = [...values];
  for (let last = result.length - 1; last > 0; last -= 1) {
    const other = integerIn(random, 0, last);
    [result[last], result[other]] = [result[other] as T, result[last] as T];
  }
  return result;
}

/** `ms` give or take a fifth, so that a fleet that starts together does not stay in step. */
export function jittered(random: Random, ms: number): number {
  return ms * (0.8 + 0.4 * random());
}
