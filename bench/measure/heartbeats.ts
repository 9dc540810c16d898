import { setTimeout as delay } from 'node:timers/promises';
import type { ClickHouseClient } from '../../src/stores/clickhouse.ts';
import type { BodySet } from './bodies.ts';
import { withCeilingServer } from './ceiling.ts';
import type { BenchCore } from './core.ts';
import type { BenchOptions, Measured, Metric } from './metric.ts';
import { coreProcesses, coreShare, createProcessSampler, type ProcessUse } from './processes.ts';
import { heartbeatPlan, introduceNodes, measureWrk, usagePlan } from './sender.ts';
import { untilDrained } from './standing.ts';
import { mean, median } from './statistics.ts';
import type { BenchWorld } from './world.ts';
import { startWrk, type WrkPlan, type WrkResult } from './wrk.ts';
import { measureYardstick, referenceEntriesPerSecond } from './yardstick.ts';

const everySeconds = 10;
const coreShareMax = 5;
const runSeconds = 20;
const runSecondsQuick = 4;
const drainMsMax = 120_000;
const mergeMsMax = 120_000;
const mergePollMs = 100;
/** The end of a merge can start another one, so ClickHouse has to be idle for a second. */
const idlePollsMin = 10;
/** Heartbeats are measured again during usage of this rate. Then no processor sleeps for long. */
const usageRequestsPerSecond = 300;
const warmMs = 3_000;

/** What a run is measured with, and what its figures are added to. */
interface Run {
  core: BenchCore;
  world: BenchWorld;
  options: BenchOptions;
  measured: Measured;
  seconds: number;
  rate: number;
  plan: WrkPlan;
  /** The name of the figure in the table. */
  name: string;
}

/**
 * What Core used without heartbeats, with them, and without them again. Each time without them is half as
 * long. So if the stores have less and less work, that counts equally for both.
 */
interface Turn {
  before: ProcessUse;
  beating: ProcessUse;
  after: ProcessUse;
}

/**
 * What the heartbeats of all nodes cost once the api processes know their keys: alone, and during usage. A
 * heartbeat costs most if it comes alone: it wakes a processor, and by then the caches of that processor
 * hold other data.
 */
export async function measureHeartbeats(
  core: BenchCore,
  world: BenchWorld,
  bodies: BodySet,
  options: BenchOptions,
  measured: Measured,
): Promise<void> {
  const run = createRun(core, world, options, measured);
  await untilDrained(core, drainMsMax);
  await leaveStoresNothing(core);
  // So far the compiler has seen usage only.
  options.say('heartbeats of all nodes, not counted');
  await introduceNodes(core, world, options.connections);
  await measureAlone(run, bodies);
  await measureBesideUsage(run, bodies);
  await untilDrained(core, drainMsMax);
}

/**
 * Heartbeats alone with one api process. It gets all of them, so it finds more in the processor's caches,
 * but it cannot accept on two cores. This ends the other api processes, and they do not come back.
 */
export async function measureHeartbeatsOfOneApi(
  core: BenchCore,
  world: BenchWorld,
  options: BenchOptions,
  measured: Measured,
): Promise<void> {
  const run = createRun(core, world, options, measured);
  await core.keepOneApi();
  await leaveStoresNothing(core);
  await introduceNodes(core, world, options.connections);
  const turns: Turn[] = [];
  for (let round = 1; round <= options.rounds; round += 1) {
    turns.push(await measureTurn(run, `heartbeats with one api process, round ${round}`));
  }
  push(run, `${run.name}, one api process`, differences(turns, coreProcesses), {
    target: { max: coreShareMax },
  });
}

/** Lets the stores finish the work that the usage left them: merges, and what autovacuum would do. */
async function leaveStoresNothing(core: BenchCore): Promise<void> {
  await core.pool.query('VACUUM ANALYZE');
  await untilMerged(core.clickhouse, mergeMsMax);
}

/** Waits until ClickHouse has merged nothing for a second, or until `msMax` are over. */
async function untilMerged(clickhouse: ClickHouseClient, msMax: number): Promise<void> {
  const giveUpAtMs = performance.now() + msMax;
  for (let idlePolls = 0; idlePolls < idlePollsMin && performance.now() < giveUpAtMs; ) {
    const answer = await clickhouse.query({
      query: 'SELECT count() AS running FROM system.merges',
      format: 'JSONEachRow',
    });
    const [merges] = await answer.json<{ running: number }>();
    idlePolls = merges?.running === 0 ? idlePolls + 1 : 0;
    await delay(mergePollMs);
  }
}

function createRun(
  core: BenchCore,
  world: BenchWorld,
  options: BenchOptions,
  measured: Measured,
): Run {
  const { connections } = options;
  const seconds = options.quick ? runSecondsQuick : runSeconds;
  const rate = world.keys.length / everySeconds;
  const plan = heartbeatPlan(core, world, { connections, seconds, rate });
  const name = `heartbeats of ${world.keys.length} nodes every ${everySeconds} s`;
  return { core, world, options, measured, seconds, rate, plan, name };
}

/**
 * Heartbeats alone, what Core uses when nobody sends, and the floor: what the same requests cost a
 * server that does nothing with them. There each one is a wake-up, a read and a write.
 */
async function measureAlone(run: Run, bodies: BodySet): Promise<void> {
  const { options, plan } = run;
  const turns: Turn[] = [];
  const bare: number[] = [];
  const yardstick: number[] = [];
  for (let round = 1; round <= options.rounds; round += 1) {
    turns.push(await measureTurn(run, `heartbeats alone, round ${round}`));
    const floor = await withCeilingServer(({ url, pid }) =>
      measureWrk({ roots: () => ({ bare: pid }) }, { ...plan, url }),
    );
    bare.push(coreShare(floor.use, ['bare']));
    yardstick.push(measureYardstick(bodies));
  }
  const more = (names: readonly string[]): number[] => differences(turns, names);
  push(run, run.name, more(coreProcesses), { target: { max: coreShareMax } });
  for (const process of ['api', 'postgres']) {
    push(run, `${run.name}: ${process}`, more([process]));
  }
  push(
    run,
    'nobody sends',
    turns.map((turn) => quietShare(turn, coreProcesses)),
  );
  push(run, 'the same requests to a server that only reads', bare);
  pushByYardstick(run, more(coreProcesses), yardstick);
}

/**
 * The same target as a ratio within the run: a heartbeat's CPU time, in entries that one core checks
 * in that time. The target is what the machine on which it was set checked in the time allowed.
 */
function pushByYardstick(
  run: Run,
  shares: readonly number[],
  entriesPerSecond: readonly number[],
): void {
  const entriesOf = (share: number, perSecond: number): number =>
    (share / 100 / run.rate) * perSecond;
  run.measured.metrics.push({
    bench: 'flatness',
    name: 'a heartbeat, by what JSON.parse and zod check in its time',
    value: median(shares.map((share, round) => entriesOf(share, entriesPerSecond[round] ?? 0))),
    unit: 'entries',
    better: 'lower',
    target: { max: Math.round(entriesOf(coreShareMax, referenceEntriesPerSecond)) },
  });
}

/** The api processes only: the stores' work on usage varies by more than heartbeats cost. */
async function measureBesideUsage(run: Run, bodies: BodySet): Promise<void> {
  const { core, world, options } = run;
  const { connections } = options;
  const turns: Turn[] = [];
  for (let round = 1; round <= options.rounds; round += 1) {
    const seconds = 2 * run.seconds + (2 * warmMs) / 1_000;
    const sent = { bodies, connections, seconds, rate: usageRequestsPerSecond };
    const load = await startWrk(usagePlan(core, world, sent));
    await delay(warmMs, undefined, { signal: options.signal });
    turns.push(await measureTurn(run, `heartbeats beside usage, round ${round}`));
    await load.result;
    await untilDrained(core, drainMsMax);
  }
  const entriesPerSecond = bodies.entries * usageRequestsPerSecond;
  const name = `heartbeats beside ${entriesPerSecond} entries/s: api`;
  push(run, name, differences(turns, ['api']));
}

/** Measures the same time without heartbeats and with them, and checks that Core answered all of them. */
async function measureTurn(run: Run, name: string): Promise<Turn> {
  const { core, options, plan } = run;
  options.say(name);
  const before = await measureQuiet(run);
  const { result, use } = await measureWrk(core, plan);
  checkAnswered(run, `${name}: answered`, result);
  return { before, beating: use, after: await measureQuiet(run) };
}

async function measureQuiet({ core, options, seconds }: Run): Promise<ProcessUse> {
  const sampler = createProcessSampler(core.roots);
  sampler.start();
  await delay((seconds / 2) * 1_000, undefined, { signal: options.signal });
  return sampler.stop();
}

function quietShare({ before, after }: Turn, kinds: readonly string[]): number {
  return mean([coreShare(before, kinds), coreShare(after, kinds)]);
}

function differences(turns: readonly Turn[], kinds: readonly string[]): number[] {
  return turns.map((turn) => coreShare(turn.beating, kinds) - quietShare(turn, kinds));
}

function push(
  { measured }: Run,
  name: string,
  values: readonly number[],
  more: Partial<Metric> = {},
): void {
  const base = { bench: 'flatness', unit: '% of a core', better: 'lower' } as const;
  measured.metrics.push({ ...base, name, value: median(values), ...more });
}

function checkAnswered({ measured, rate, seconds }: Run, name: string, result: WrkResult): void {
  const asked = rate * seconds;
  measured.checks.push({
    bench: 'flatness',
    name,
    passed: result.refused === 0 && result.lost === 0 && result.ok >= 0.95 * asked,
    detail: `${result.ok} of ${asked}, ${result.refused} refused, ${result.lost} lost`,
  });
}
