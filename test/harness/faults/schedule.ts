import { type FailpointName, failpointNames } from '../../../src/failpoints.ts';
import {
  createRandom,
  integerIn,
  nodeSeed,
  pick,
  type Random,
  shuffled,
} from '../simulator/random.ts';
import { type Victim, victims } from './killable.ts';

/** When a fault happens: at the n-th pass of a failpoint in a round, or at a time after its start. */
export type When = { failpoint: FailpointName; pass: number } | { afterMs: number };

/** One kill, and perhaps a second one during the recovery from the first. */
export interface Kill {
  victim: Victim;
  when: When;
  downMs: number;
  again: { victim: Victim; afterMs: number; downMs: number } | undefined;
}

/** Holds a process at a failpoint for `ms`: it is slow, not dead. */
export interface Hold {
  when: { failpoint: FailpointName; pass: number };
  ms: number;
}

export interface RoundPlan {
  round: number;
  kills: Kill[];
  holds: Hold[];
  /** Whether some usage posts have rows that ClickHouse refuses. Without them nothing is bisected. */
  poison: boolean;
}

/** What the faults of a round are drawn from. A removal narrows it to the faults that test it. */
export interface FaultMix {
  /** Rounds kill these by turns, in an order that the seed shuffles. */
  pairs: readonly { victim: Victim; failpoint: FailpointName }[];
  /** Share of rounds with a second, independent kill at a random time. */
  extraShare: number;
  /** Share of kills with another one during recovery. */
  againShare: number;
  /** Share of rounds that hold a worker, at which failpoints, and for how long at most. */
  holdShare: number;
  holdAt: readonly FailpointName[];
  holdMsMax: number;
  /** A second worker shares the streams with the first. It is neither killed nor held. */
  workers: 1 | 2;
}

const loaderFailpoints = failpointNames.filter((name) => !name.startsWith('accept'));

export const wholeMix: FaultMix = {
  pairs: victims.flatMap((victim) => failpointNames.map((failpoint) => ({ victim, failpoint }))),
  extraShare: 0.4,
  againShare: 0.35,
  holdShare: 0.15,
  holdAt: loaderFailpoints,
  holdMsMax: 1_500,
  workers: 1,
};

/** No faults. For a scenario, which is a fault by itself. */
export const noMix: FaultMix = {
  ...wholeMix,
  pairs: [],
  extraShare: 0,
  againShare: 0,
  holdShare: 0,
};

const afterMsMax = 1_500;
const downMsMax = 500;
const recoveryMsMax = 1_000;
/** Passes of a failpoint that nearly every round reaches. */
const passMax = { accept: 12, load: 4, reject: 1 };

/** The faults of one round. They depend on the seed and on the round's number alone. */
export function planRound(seed: number, round: number, mix: FaultMix): RoundPlan {
  const random = createRandom(nodeSeed(seed, round));
  const pairs = shuffled(createRandom(nodeSeed(seed, 1_000_000)), mix.pairs);
  const pair = pairs[round % pairs.length];
  const kills: Kill[] = [];
  if (pair !== undefined) {
    const pass = integerIn(random, 1, passesOf(pair.failpoint));
    kills.push(makeKill(random, mix, pair.victim, { failpoint: pair.failpoint, pass }));
  }
  if (random() < mix.extraShare) {
    kills.push(makeKill(random, mix, pick(random, victims), { afterMs: random() * afterMsMax }));
  }
  const holds: Hold[] = [];
  if (random() < mix.holdShare) {
    const failpoint = pick(random, mix.holdAt);
    const pass = integerIn(random, 1, passesOf(failpoint));
    const ms = integerIn(random, Math.ceil(mix.holdMsMax / 3), mix.holdMsMax);
    holds.push({ when: { failpoint, pass }, ms });
  }
  const atReject = ({ when }: Kill | Hold): boolean =>
    'failpoint' in when && when.failpoint.startsWith('reject');
  return { round, kills, holds, poison: [...kills, ...holds].some(atReject) };
}

function makeKill(random: Random, mix: FaultMix, victim: Victim, when: When): Kill {
  const again =
    random() < mix.againShare
      ? {
          victim: random() < 0.5 ? victim : pick(random, victims),
          afterMs: random() * recoveryMsMax,
          downMs: random() * downMsMax,
        }
      : undefined;
  return { victim, when, downMs: random() * downMsMax, again };
}

function passesOf(failpoint: FailpointName): number {
  if (failpoint.startsWith('reject')) return passMax.reject;
  return failpoint.startsWith('accept') ? passMax.accept : passMax.load;
}
