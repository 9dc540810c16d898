import type { BodySet } from './bodies.ts';
import type { BenchCore } from './core.ts';
import type { BenchOptions } from './metric.ts';
import { createProcessSampler, type ProcessUse } from './processes.ts';
import { usagePlan } from './sender.ts';
import { type Standing, watchStanding } from './spool.ts';
import { slope } from './statistics.ts';
import type { BenchWorld } from './world.ts';
import { startWrk } from './wrk.ts';

/** What a sustained run did in its window. */
export interface Sustained {
  /** Rows that became settled a second: in ClickHouse and in the counters. */
  settledPerSecond: number;
  acceptedRows: number;
  /** Ends of the line through the backlog's samples. */
  backlogStartRows: number;
  backlogEndRows: number;
  backlogBytesMax: number;
  /** Accepted and not yet settled, in rows, by seconds since the window began. */
  backlog: { x: number; y: number }[];
  /** Of the whole run, warming included. */
  acked: number;
  refused: number;
  lost: number;
  use: ProcessUse;
}

/**
 * The backlog that the rate is steered to. Large enough that the loader always has work although it
 * settles in lumps some seconds apart, and small beside what the spool may hold.
 */
const backlogRowsAim = 2_000_000;
const backlogRowsAimQuick = 200_000;
/** How much faster or slower than what is settled is sent, at most. */
const riseMax = 1.4;
const fallMax = 0.2;
/** Segments are settled in lumps, so backlog and rate are taken over so many samples. */
const rateSamples = 12;
const warmSeconds = 40;
const warmSecondsQuick = 15;
/** What is sent at first, and taken for settled where less was. */
const firstEntriesPerSecond = 200_000;
const firstEntriesPerSecondQuick = 50_000;

/**
 * Steers the sender to the highest rate at which the backlog stays where it is: each second the rate
 * becomes what was settled lately, and more or less as the backlog is below or above its aim. So the loader always has
 * work, accept takes no more of the machine than what can be loaded needs, and the spool's bound is
 * never what holds the sender back.
 */
export async function sustain(
  core: BenchCore,
  world: BenchWorld,
  options: BenchOptions & { bodies: BodySet },
): Promise<Sustained> {
  const { bodies, connections } = options;
  const warm = options.quick ? warmSecondsQuick : warmSeconds;
  const least = options.quick ? firstEntriesPerSecondQuick : firstEntriesPerSecond;
  const rate = least / bodies.entries;
  const aim = options.quick ? backlogRowsAimQuick : backlogRowsAim;
  const seconds = warm + options.seconds + 30;
  const run = await startWrk(usagePlan(core, world, { bodies, connections, seconds, rate }));
  const sampler = createProcessSampler(() => ({
    ...core.roots(),
    ...(run.pid === undefined ? {} : { generator: run.pid }),
  }));
  const window: Standing[] = [];
  let use: ProcessUse | undefined;
  try {
    const ended = new AbortController();
    const recent: Standing[] = [];
    let second = 0;
    await watchStanding(core, AbortSignal.any([ended.signal, options.signal]), (standing) => {
      recent.push(standing);
      if (recent.length > rateSamples) recent.shift();
      const settled = Math.max(least, settledPerSecond(recent));
      run.setRate((settled * steer(recent, aim)) / bodies.entries);
      if (second === warm) sampler.start();
      if (second >= warm) window.push(standing);
      if (second === warm + options.seconds) {
        use = sampler.stop();
        ended.abort();
      }
      if (second % 5 === 0) tell(options, recent, second - warm);
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

/** What the rate is to be, as a multiple of what is settled. */
function steer(recent: readonly Standing[], aimRows: number): number {
  const mean = recent.reduce((sum, standing) => sum + backlogRows(standing), 0) / recent.length;
  return Math.min(riseMax, Math.max(fallMax, 1 + (0.4 * (aimRows - mean)) / aimRows));
}

function settledPerSecond(standings: readonly Standing[]): number {
  const first = standings[0];
  const last = standings.at(-1);
  if (first === undefined || last === undefined || last === first) return 0;
  return ((last.settledRows - first.settledRows) * 1_000) / (last.atMs - first.atMs);
}

function summarise(window: readonly Standing[]) {
  const first = window[0] as Standing;
  const last = window.at(-1) as Standing;
  const backlog = window.map((standing) => ({
    x: Math.round((standing.atMs - first.atMs) / 1_000),
    y: backlogRows(standing),
  }));
  const perSecond = slope(backlog);
  const meanY = backlog.reduce((sum, { y }) => sum + y, 0) / backlog.length;
  const lengthSeconds = (last.atMs - first.atMs) / 1_000;
  return {
    settledPerSecond: settledPerSecond(window),
    acceptedRows: last.appendedRows - first.appendedRows,
    backlogStartRows: Math.round(meanY - (perSecond * lengthSeconds) / 2),
    backlogEndRows: Math.round(meanY + (perSecond * lengthSeconds) / 2),
    backlogBytesMax: Math.max(...window.map(({ backlogBytes }) => backlogBytes)),
    backlog,
  };
}

function tell(options: BenchOptions, recent: readonly Standing[], second: number): void {
  const last = recent.at(-1) as Standing;
  options.say(
    `${second < 0 ? `warming, ${-second} s to go` : `${second} s`}: ` +
      `${Math.round(settledPerSecond(recent))} entries/s settled, ` +
      `backlog ${Math.round(backlogRows(last) / 1_000)} k rows`,
  );
}
