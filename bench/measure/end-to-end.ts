import { Lifecycle } from '../../src/lifecycle.ts';
import { createBodies } from './bodies.ts';
import { type BenchCore, startBenchCore } from './core.ts';
import {
  type BenchOptions,
  emptyMeasured,
  type Measured,
  type Metric,
  sizesOf,
  type Target,
} from './metric.ts';
import { coreProcesses, coreShare } from './processes.ts';
import { checkAppended, checkSettled, untilDrained } from './standing.ts';
import { type Sustained, sustain } from './sustain.ts';
import { type BenchWorld, createBenchWorld } from './world.ts';

/** Targets in entries a second, by entries a request. */
const targets = new Map<number, Target>([
  [500, { min: 1_000_000 }],
  [100, { min: 600_000 }],
]);
const residentTargets: Record<string, Target> = { api: { max: 250 }, worker: { max: 400 } };
const drainMsMax = 300_000;
/** Largest change of the backlog over the window, as a share of the rows accepted in it. */
const flatShareMax = 0.05;
/** A quick run is too short for its backlog to become flat. */
const flatShareMaxQuick = 0.5;

/**
 * The highest rate at which entries reach ClickHouse and the counters with a flat backlog, for
 * `seconds`, at 500 and at 100 entries a request. `--rate` measures that rate instead. Each size has a
 * Core of its own, so that neither finds the other's parts and keys. Afterwards the bench drains
 * everything and compares.
 */
export async function measureEndToEnd(options: BenchOptions): Promise<Measured> {
  const measured = emptyMeasured();
  const points: { x: number; y: number }[] = [];
  for (const entries of sizesOf(options, [...targets.keys()])) {
    const lifecycle = new Lifecycle();
    try {
      const core = await startBenchCore(lifecycle, { ...options, worker: true });
      options.say(`creating ${options.nodes} nodes and ${options.subscriptions} subscriptions`);
      const world = await createBenchWorld(core.pool, core.config, options);
      const found = await measureSize(core, world, entries, options, measured);
      points.unshift({ x: entries, y: found.settledPerSecond });
    } finally {
      await lifecycle.close();
    }
  }
  measured.series.push({ bench: 'e2e', plot: 'batch', label: 'end to end', points });
  return measured;
}

async function measureSize(
  core: BenchCore,
  world: BenchWorld,
  entries: number,
  options: BenchOptions,
  measured: Measured,
): Promise<Sustained> {
  const { connections } = options;
  const bodies = createBodies(world, { entries, seed: entries, atMs: Date.now() });
  const found = await sustain(core, world, { ...options, bodies });
  options.say('draining');
  const { appendedRows } = await untilDrained(core, drainMsMax);
  options.say(`comparing ${appendedRows} rows`);
  const { acked, refused, lost } = found;
  const name = `${entries} a request`;
  const changed = found.backlogEndRows - found.backlogStartRows;
  const checks = [
    checkAppended('e2e', 'rows appended', { acked, entries, appendedRows, connections }),
    ...(await checkSettled('e2e', core, appendedRows)),
    {
      bench: 'e2e' as const,
      name: 'backlog flat',
      passed:
        Math.abs(changed) <=
        (options.quick ? flatShareMaxQuick : flatShareMax) * found.acceptedRows,
      detail: `${found.backlogStartRows} to ${found.backlogEndRows} rows, by least squares, while ${found.acceptedRows} were accepted`,
    },
    {
      bench: 'e2e' as const,
      name: 'every answer a 200',
      passed: refused === 0 && lost === 0,
      detail: `${refused} refused, ${lost} lost`,
    },
  ];
  measured.checks.push(...checks.map((check) => ({ ...check, name: `${name}: ${check.name}` })));
  measured.metrics.push(...metricsOf(found, entries));
  measured.series.push({ bench: 'e2e', plot: 'backlog', label: name, points: found.backlog });
  return found;
}

function metricsOf(found: Sustained, entries: number): Metric[] {
  const target = targets.get(entries);
  const of = (name: string): string => `${entries} a request${name}`;
  const bench = 'e2e' as const;
  const metrics: Metric[] = [
    {
      bench,
      name: of(''),
      value: found.settledPerSecond,
      unit: 'entries/s',
      better: 'higher',
      ...(target === undefined ? {} : { target }),
    },
    {
      bench,
      name: of(': backlog, largest'),
      value: found.backlogBytesMax / 1e6,
      unit: 'MB',
      better: 'none',
    },
  ];
  const { residentBytesMax } = found.use;
  for (const name of [...coreProcesses, 'generator']) {
    const value = coreShare(found.use, [name]);
    const cpu = { bench, unit: '% of a core', better: 'none' } as const;
    metrics.push({ ...cpu, name: of(`: CPU of ${name}`), value });
  }
  for (const name of coreProcesses) {
    const resident = residentTargets[name];
    metrics.push({
      bench,
      name: of(`: memory of ${name}, largest`),
      value: (residentBytesMax[name] ?? 0) / 1e6,
      unit: 'MB',
      better: 'lower',
      ...(resident === undefined ? {} : { target: resident }),
    });
  }
  return metrics;
}
