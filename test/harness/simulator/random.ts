/** A source of numbers in [0, 1), the same ones for the same seed. */
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

/** The seed of one node's source: neighbouring nodes get unrelated numbers. */
export function nodeSeed(seed: number, nodeIndex: number): number {
  return (Math.imul(seed, 0x9e3779b1) ^ Math.imul(nodeIndex + 1, 0x85ebca6b)) >>> 0;
}

/** An integer from `min` to `max`, both included. */
export function integerIn(random: Random, min: number, max: number): number {
  return min + Math.floor(random() * (max - min + 1));
}

/** `ms` give or take a fifth, so that a fleet that started together does not stay together. */
export function jittered(random: Random, ms: number): number {
  return ms * (0.8 + 0.4 * random());
}
