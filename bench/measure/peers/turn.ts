import { setTimeout as delay } from 'node:timers/promises';
import { Lifecycle } from '../../../src/lifecycle.ts';
import { createBodies } from '../bodies.ts';
import type { BenchOptions, Check } from '../metric.ts';
import { numberedWorld } from '../micro.ts';
import { runWrk, type WrkResult } from '../wrk.ts';
import type { OpenPeer, Peer, Turn } from './peer.ts';

export interface TurnPlan {
  round: number;
  batchSizes: readonly number[];
}

/** The same for all peers and sizes, so that all get the same entries in the same order. */
export const bodySeed = 1;

/** The same as in accept.ts. */
export const runSeconds = ({ quick }: BenchOptions): number => (quick ? 2 : 8);
export const warmSeconds = ({ quick }: BenchOptions): number => (quick ? 1 : 3);

const warmSecondsMax = 180;
const warmTimes = 2.5;
const stillMs = 1_000;
const stillTurnsMax = 120;
let seeds = 0;

/** A peer's turn: start, warm up, measure each size, compare what it stored with its answers, stop. */
export async function measurePeer(
  peer: Peer,
  options: BenchOptions,
  turn: TurnPlan,
): Promise<Turn> {
  const lifecycle = new Lifecycle();
  const found: Turn = { rates: [], checks: [] };
  const { connections } = options;
  try {
    const open = await peer.open(lifecycle, options);
    const world = numberedWorld(options.subscriptions, options.nodes);
    const sent = { least: 0, most: 0, refused: 0 };
    const atMs = Date.now();
    for (const entries of turn.batchSizes) {
      const bodies = createBodies(world, { entries, seed: bodySeed, atMs, format: open.format });
      const post = async (seconds: number): Promise<WrkResult> => {
        options.signal.throwIfAborted();
        seeds += 1;
        const plan = { ...open.target, method: 'POST', bodies, connections, seconds } as const;
        const result = await runWrk({ ...plan, seed: seeds });
        sent.least += result.ok * entries;
        // A peer may store part of what it refuses, and wrk does not wait for its last answers.
        sent.most += (result.ok + result.refused + connections + result.lost) * entries;
        sent.refused += result.refused + result.lost;
        return result;
      };
      const warm = await post(warmSeconds(options));
      if (open.hasSeries === true) {
        const more = secondsUntilAllCame(bodies.bodies.length, warm);
        const last = more === 0 ? warm : await post(more);
        found.checks.push({
          bench: 'peers',
          name: `${peer.name}, ${entries} a request, round ${turn.round}: every series was known`,
          passed: last.ok >= bodies.bodies.length,
          detail: `${last.ok} requests of ${bodies.bodies.length} bodies before the measured ones`,
        });
      }
      const result = await post(runSeconds(options));
      const entriesPerSecond = (result.ok * entries) / result.seconds;
      found.rates.push({ name: peer.name, entries, entriesPerSecond });
    }
    const name = `${peer.name}, round ${turn.round}`;
    const stored = await untilStill(open, options);
    found.checks.push(checkStored(name, { ...sent, stored, ...open }));
    const more = await open.check?.();
    if (more !== undefined) {
      found.checks.push({ bench: 'peers', ...more, name: `${name}: ${more.name}` });
    }
  } finally {
    await lifecycle.close();
  }
  return found;
}

/**
 * Seconds to warm up again if the warm-up was too short to send every body once, otherwise 0. wrk begins
 * with the first body each time, so the second run has to be long enough by itself. It gets two and a half
 * times the time that the first run's rate needs, because a peer that has begun to merge is slower. It gets
 * at most three minutes.
 */
export function secondsUntilAllCame(
  bodies: number,
  warm: Pick<WrkResult, 'ok' | 'seconds'>,
): number {
  if (warm.ok >= bodies) return 0;
  return Math.min(
    warmSecondsMax,
    Math.ceil((warmTimes * bodies * warm.seconds) / Math.max(1, warm.ok)),
  );
}

/** A peer has to store all that it answered with a 2xx, and nothing that was not sent. */
export function checkStored(
  name: string,
  run: {
    least: number;
    most: number;
    refused: number;
    stored: number;
    overwrittenShareMax: number;
  },
): Check {
  const least = Math.floor(run.least * (1 - run.overwrittenShareMax));
  return {
    bench: 'peers',
    name: `${name}: what was answered is stored`,
    passed: run.least > 0 && run.stored >= least && run.stored <= run.most,
    detail: `${run.least} entries answered with 2xx, ${run.stored} stored, ${run.refused} requests refused or lost`,
  };
}

/** Counts until two counts agree, since the last requests of wrk may still be on their way. */
async function untilStill(open: OpenPeer, { signal }: BenchOptions): Promise<number> {
  let last = await open.countStored();
  for (let turns = 0; turns < stillTurnsMax; turns += 1) {
    await delay(stillMs, undefined, { signal });
    const stored = await open.countStored();
    if (stored === last) return stored;
    last = stored;
  }
  throw new Error(`a peer still stores ${(stillTurnsMax * stillMs) / 1_000} s after the last post`);
}
