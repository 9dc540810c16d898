import { Lifecycle } from '../../src/lifecycle.ts';
import { type BodySet, createBodies } from './bodies.ts';
import { type BenchCore, startBenchCore } from './core.ts';
import { measureHeartbeats, measureHeartbeatsOfOneApi } from './heartbeats.ts';
import { type BenchOptions, emptyMeasured, type Measured } from './metric.ts';
import {
  coreProcesses,
  createProcessSampler,
  type ProcessUse,
  tellsProcessUse,
} from './processes.ts';
import { introduceNodes, usagePlan } from './sender.ts';
import { checkSettled, emptySpool, untilDrained, untilStill } from './standing.ts';
import { median, spread } from './statistics.ts';
import { rotated } from './timing.ts';
import { type BenchWorld, createBenchWorld } from './world.ts';
import { runWrk } from './wrk.ts';

const entries = 100;
/** Low enough for the smallest machine with every number of nodes. */
const entriesPerSecond = 100_000;
const entriesPerSecondQuick = 20_000;
const runSeconds = 20;
const runSecondsQuick = 4;
const drainMsMax = 120_000;
const spreadMax = 20;

/**
 * Whether the cost of an entry stays flat. It measures the CPU of all of Core's processes an entry, at the
 * same total rate from 10, 100, 1,000 and 10,000 nodes, from the first request until all is settled. Then
 * it measures what the heartbeats of all nodes cost, the rate of accept alone from each number of nodes,
 * and heartbeats again with one api process.
 */
export async function measureFlatness(options: BenchOptions): Promise<Measured> {
  if (!tellsProcessUse())
    throw new Error('flatness reads CPU times from /proc, which only Linux has');
  const lifecycle = new Lifecycle();
  const measured = emptyMeasured();
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: true });
    options.say(`creating ${options.nodes} nodes and ${options.subscriptions} subscriptions`);
    const world = await createBenchWorld(core.pool, core.config, options);
    const bodies = createBodies(world, { entries, seed: 1, atMs: Date.now() });
    const counts = [10, 100, 1_000, 10_000].filter((nodes) => nodes <= options.nodes);
    // Otherwise the first run from 10,000 nodes looks up each key in Postgres and costs more.
    options.say('heartbeats of all nodes, so that they are known');
    await introduceNodes(core, world, options.connections);
    await measureCost(core, world, bodies, counts, options, measured);
    await measureHeartbeats(core, world, bodies, options, measured);
    const { appendedRows } = await untilDrained(core, drainMsMax);
    measured.checks.push(...(await checkSettled('flatness', core, appendedRows)));
    await core.stopWorker();
    await measureThroughput(core, world, bodies, counts, options, measured);
    await core.startWorker();
    await measureHeartbeatsOfOneApi(core, world, options, measured);
  } finally {
    await lifecycle.close();
  }
  return measured;
}

async function measureCost(
  core: BenchCore,
  world: BenchWorld,
  bodies: BodySet,
  counts: readonly number[],
  options: BenchOptions,
  measured: Measured,
): Promise<void> {
  const { connections } = options;
  const seconds = options.quick ? runSecondsQuick : runSeconds;
  const rate = (options.quick ? entriesPerSecondQuick : entriesPerSecond) / entries;
  const costs = new Map<number, { use: ProcessUse; rows: number }[]>(counts.map((n) => [n, []]));
  const sampler = createProcessSampler(core.roots);
  for (let round = 0; round <= options.rounds; round += 1) {
    // Each round begins with another number of nodes: every few runs ClickHouse merges what earlier
    // runs inserted, and that counts for the run it falls into.
    for (const nodes of rotated(counts, round)) {
      options.signal.throwIfAborted();
      const before = await untilDrained(core, drainMsMax);
      sampler.start();
      // Round 0 warms caches and the compiler, and is not counted.
      const run = { bodies, connections, nodes, rate, seconds: round === 0 ? 3 : seconds };
      const { ok } = await runWrk(usagePlan(core, world, run));
      const { appendedRows } = await untilDrained(core, drainMsMax);
      const use = sampler.stop();
      if (round === 0) continue;
      const rows = appendedRows - before.appendedRows;
      costs.get(nodes)?.push({ use, rows });
      measured.checks.push({
        bench: 'flatness',
        name: `${nodes} nodes, round ${round}: the same rate`,
        passed: ok >= 0.95 * rate * seconds,
        detail: `${ok} of ${rate * seconds} requests`,
      });
      options.say(`${nodes} nodes, round ${round}: ${microseconds(use, rows, coreProcesses)} µs`);
    }
  }
  reportCost(costs, measured);
}

function microseconds({ cpuSeconds }: ProcessUse, rows: number, names: readonly string[]): number {
  const seconds = names.reduce((sum, name) => sum + (cpuSeconds[name] ?? 0), 0);
  return rows === 0 ? 0 : Number(((seconds * 1e6) / rows).toPrecision(3));
}

function reportCost(
  costs: ReadonlyMap<number, { use: ProcessUse; rows: number }[]>,
  measured: Measured,
): void {
  const metric = (name: string, values: number[]): number => {
    const value = median(values);
    const unit = 'µs CPU an entry';
    measured.metrics.push({ bench: 'flatness', name, value, unit, better: 'lower' });
    return value;
  };
  const points: { x: number; y: number }[] = [];
  for (const [nodes, runs] of costs) {
    const of = (names: readonly string[]): number[] =>
      runs.map(({ use, rows }) => microseconds(use, rows, names));
    points.push({ x: nodes, y: metric(`${nodes} nodes`, of(coreProcesses)) });
    for (const name of coreProcesses) metric(`${nodes} nodes: ${name}`, of([name]));
  }
  measured.metrics.push({
    bench: 'flatness',
    name: 'CPU an entry, dearest against cheapest number of nodes',
    value: spread(points.map(({ y }) => y)) * 100,
    unit: '% more',
    better: 'lower',
    target: { max: spreadMax },
  });
  measured.series.push({ bench: 'flatness', plot: 'nodes-cpu', label: 'all of Core', points });
}

async function measureThroughput(
  core: BenchCore,
  world: BenchWorld,
  bodies: BodySet,
  counts: readonly number[],
  options: BenchOptions,
  measured: Measured,
): Promise<void> {
  const { connections } = options;
  const seconds = options.quick ? 2 : 5;
  const rates = new Map<number, number[]>(counts.map((nodes) => [nodes, []]));
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const nodes of counts) {
      options.signal.throwIfAborted();
      const result = await runWrk(usagePlan(core, world, { bodies, connections, nodes, seconds }));
      rates.get(nodes)?.push((result.ok * entries) / result.seconds);
      await untilStill(core);
      await emptySpool(core);
    }
  }
  const points = [...rates].map(([x, values]) => ({ x, y: median(values) }));
  for (const { x, y } of points) {
    const name = `${x} nodes: accepted, alone`;
    measured.metrics.push({
      bench: 'flatness',
      name,
      value: y,
      unit: 'entries/s',
      better: 'higher',
    });
  }
  const label = `accepted, ${entries} a request`;
  measured.series.push({ bench: 'flatness', plot: 'nodes-throughput', label, points });
}
