import type { BodySet } from './bodies.ts';
import type { BenchCore } from './core.ts';
import type { BenchOptions } from './metric.ts';
import { createProcessSampler, type ProcessUse } from './processes.ts';
import { usagePlan } from './sender.ts';
import { perSecondOf, type Standing, watchStanding } from './standing.ts';
import { mean, slope } from './statistics.ts';
import { createSteering, steadySteering } from './steering.ts';
import type { BenchWorld } from './world.ts';
import { startWrk } from './wrk.ts';

/** What a sustained run did in its window. */
export interface Sustained {
  /** Rows that became settled a second: in ClickHouse and in the counters. */
  settledPerSecond: number;
  /** Rows accepted over the length of the backlog's line. */
  acceptedRows: number;
  /** Both ends of the line through the backlog: see `summarise`. */
  backlogStartRows: number;
  backlogEndRows: number;
  backlogBytesMax: number;
  /** Rows accepted and not yet settled (y), by seconds since the window began (x). */
  backlog: { x: number; y: number }[];
  /** These three count the whole run, with the warm-up. */
  acked: number;
  refused: number;
  lost: number;
  use: ProcessUse;
}

/**
 * The warm-up takes at least this long. It goes on until the loader has once fallen behind and keeps
 * up again, for at most three times as long.
 */
const warmSeconds = 60;
const warmSecondsQuick = 15;
const warmTimesMax = 3;
/**
 * The window begins once the rate has been held for longer than a batch gathers. Before that, rows
 * are settled that were sent at the rates of the warm-up, and the backlog is still changing.
 */
const holdSeconds = 15;
const holdSecondsQuick = 2;
const firstEntriesPerSecond = 400_000;
const firstEntriesPerSecondQuick = 50_000;

/**
 * Finds the rate at which the loader just keeps up, and then follows it (`createSteering`). So the
 * loader always has work, accept leaves the rest of the machine to it, and the spool never reaches its
 * bound. The figure is what became settled in the window.
 */
export async function sustain(
  core: BenchCore,
  world: BenchWorld,
  options: BenchOptions & { bodies: BodySet },
): Promise<Sustained> {
  const { bodies, connections } = options;
  const warm = options.quick ? warmSecondsQuick : warmSeconds;
  const first = options.quick ? firstEntriesPerSecondQuick : firstEntriesPerSecond;
  const steering =
    options.rate === undefined ? createSteering(first) : steadySteering(options.rate);
  const rate = steering.rate() / bodies.entries;
  const hold = options.quick ? holdSecondsQuick : holdSeconds;
  const seconds = warm * warmTimesMax + hold + options.seconds + 30;
  const run = await startWrk(usagePlan(core, world, { bodies, connections, seconds, rate }));
  const sampler = createProcessSampler(() => ({
    ...core.roots(),
    ...(run.pid === undefined ? {} : { generator: run.pid }),
  }));
  const window: Standing[] = [];
  let use: ProcessUse | undefined;
  try {
    const ended = new AbortController();
    let second = 0;
    let begin = Infinity;
    await watchStanding(core, AbortSignal.any([ended.signal, options.signal]), (standing) => {
      steering.see(standing);
      if (begin === Infinity && second >= warm) {
        if (steering.isFound() || second >= warm * warmTimesMax) {
          steering.hold();
          begin = second + hold;
        }
      }
      if (second === begin) sampler.start();
      run.setRate(steering.rate() / bodies.entries);
      if (second >= begin) window.push(standing);
      if (second === begin + options.seconds) {
        use = sampler.stop();
        ended.abort();
      }
      if (second % 5 === 0) tell(options, steering.rate(), standing, second - begin);
      second += 1;
    });
    options.signal.throwIfAborted();
  } finally {
    run.stop();
  }
  const { ok, refused, lost } = await run.result;
  if (use === undefined) throw new Error('the sustained run ended before its window');
  return { ...summarise(window), acked: ok, refused, lost, use };
}

function backlogRows({ appendedRows, settledRows }: Standing): number {
  return appendedRows - settledRows;
}

/**
 * Rows become settled in lumps of up to ten seconds, so the backlog goes up and down like a saw. These
 * are the numbers of the samples that show a lump. If two samples in a row show one, the first counts.
 * From each number to the next is a whole tooth.
 */
function lumpsOf(window: readonly Standing[]): number[] {
  const grew = (index: number): boolean =>
    index > 0 && window[index]?.settledRows !== window[index - 1]?.settledRows;
  return [...window.keys()].filter((index) => grew(index) && !grew(index - 1));
}

/** Replaces each sample by the mean of its tooth, so that a line through them ignores the saw. */
function meansOf(teeth: readonly (readonly { x: number; y: number }[])[]) {
  return teeth.flatMap((tooth) => {
    const point = { x: mean(tooth.map(({ x }) => x)), y: mean(tooth.map(({ y }) => y)) };
    return tooth.map(() => point);
  });
}

/**
 * Sums up a window's samples, one a second. A line through the samples of a flat backlog would rise:
 * over n teeth by an n-th of a tooth, which for four teeth is 6 % of the accepted rows. So the line
 * goes through the means of the teeth. With fewer than two teeth it goes through the samples.
 */
export function summarise(
  window: readonly Standing[],
): Omit<Sustained, 'use' | 'acked' | 'refused' | 'lost'> {
  const first = window[0] as Standing;
  const pointOf = (standing: Standing) => ({
    x: Math.round((standing.atMs - first.atMs) / 1_000),
    y: backlogRows(standing),
  });
  const lumps = lumpsOf(window);
  const [start, end] =
    lumps.length < 2 ? [0, window.length] : [lumps[0] as number, lumps.at(-1) as number];
  const points = window.slice(start, end).map(pointOf);
  const teeth = lumps.slice(1).map((next, index) => window.slice(lumps[index], next).map(pointOf));
  const perSecond = slope(teeth.length < 2 ? points : meansOf(teeth));
  const meanY = mean(points.map(({ y }) => y));
  const lengthSeconds = (points.at(-1)?.x ?? 0) - (points[0]?.x ?? 0);
  // The lump that ends the last tooth counts, since its rows came in the teeth before it.
  const toLastLump = window.slice(start, end + 1);
  return {
    settledPerSecond: perSecondOf(toLastLump, 'settledRows'),
    acceptedRows: Math.round(perSecondOf(toLastLump, 'appendedRows') * lengthSeconds),
    backlogStartRows: Math.round(meanY - (perSecond * lengthSeconds) / 2),
    backlogEndRows: Math.round(meanY + (perSecond * lengthSeconds) / 2),
    backlogBytesMax: Math.max(...window.map(({ backlogBytes }) => backlogBytes)),
    backlog: window.map(pointOf),
  };
}

function tell(options: BenchOptions, perSecond: number, standing: Standing, second: number): void {
  const { appendedRows, sealedRows } = standing;
  options.say(
    `${second < 0 ? 'warming' : `${second} s`}: ` +
      `sending ${Math.round(perSecond)} entries/s, ` +
      `${Math.round((appendedRows - sealedRows) / 1_000)} k rows unread, ` +
      `${Math.round(backlogRows(standing) / 1_000)} k not settled`,
  );
}
