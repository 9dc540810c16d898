import { Lifecycle } from '../../src/lifecycle.ts';
import { type BodySet, createBodies } from './bodies.ts';
import { measureCeiling } from './ceiling.ts';
import { type BenchCore, startBenchCore } from './core.ts';
import { type BenchOptions, emptyMeasured, type Measured, type Metric, sizesOf } from './metric.ts';
import { coreShare, type ProcessUse } from './processes.ts';
import { measureWrk, usagePlan } from './sender.ts';
import { checkAppended, emptySpool, untilStill } from './standing.ts';
import { median } from './statistics.ts';
import { type BenchWorld, createBenchWorld } from './world.ts';
import { runWrk } from './wrk.ts';

export const batchSizes = [10, 100, 500] as const;

/** Short enough that accept alone does not reach the spool's bound, 1 GiB a stream. */
const runSeconds = 8;
const runSecondsQuick = 2;
const warmSeconds = 2;

interface Run {
  entriesPerSecond: number;
  requestsPerSecond: number;
  p99Ms: number;
  use: ProcessUse;
}

/**
 * Requests and entries a second that Core answers with a 200, each after Redis has fsynced it: with
 * the worker stopped (accept alone), and with the worker loading meanwhile. The bench empties the
 * spool between two runs. So the rate with the worker is what accept reaches while the worker runs,
 * not what both sustain, which the end-to-end bench measures.
 */
export async function measureAccept(options: BenchOptions): Promise<Measured> {
  const lifecycle = new Lifecycle();
  const measured = emptyMeasured();
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: false });
    options.say(`creating ${options.nodes} nodes and ${options.subscriptions} subscriptions`);
    const world = await createBenchWorld(core.pool, core.config, options);
    const sets = new Map(
      sizesOf(options, batchSizes).map((entries) => [
        entries,
        createBodies(world, { entries, seed: entries, atMs: Date.now() }),
      ]),
    );
    const warming = sets.get(100) ?? ([...sets.values()][0] as BodySet);
    await warmUp(core, world, warming, options);
    for (const worker of [false, true]) {
      const runs = await measureRounds(core, world, sets, { ...options, worker }, measured);
      report(runs, worker, measured);
    }
    for (const [entries, bodies] of sets) {
      options.say(`what wrk alone reaches at ${entries} entries a request`);
      const seconds = options.quick ? runSecondsQuick : 5;
      const ceiling = await measureCeiling(world, { ...options, bodies, seconds });
      measured.metrics.push({
        bench: 'accept',
        name: `wrk against a server that only reads, ${entries} a request`,
        value: ceiling * entries,
        unit: 'entries/s',
        better: 'none',
      });
    }
  } finally {
    await lifecycle.close();
  }
  return measured;
}

async function warmUp(
  core: BenchCore,
  world: BenchWorld,
  bodies: BodySet,
  options: BenchOptions,
): Promise<void> {
  const { connections } = options;
  await runWrk(usagePlan(core, world, { bodies, connections, seconds: warmSeconds }));
  await untilStill(core);
  await emptySpool(core);
}

async function measureRounds(
  core: BenchCore,
  world: BenchWorld,
  sets: ReadonlyMap<number, BodySet>,
  options: BenchOptions & { worker: boolean },
  measured: Measured,
): Promise<Map<number, Run[]>> {
  const runs = new Map<number, Run[]>([...sets.keys()].map((entries) => [entries, []]));
  const seconds = options.quick ? runSecondsQuick : runSeconds;
  const { connections, worker } = options;
  const beside = worker ? 'with the worker' : 'alone';
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const [entries, bodies] of sets) {
      options.signal.throwIfAborted();
      if (worker) await core.startWorker();
      const { result, use } = await measureWrk(
        core,
        usagePlan(core, world, { bodies, connections, seconds }),
      );
      const { appendedRows } = await untilStill(core);
      await core.stopWorker();
      await emptySpool(core);
      const acked = result.ok;
      const name = `accept ${beside}, ${entries} a request, round ${round}`;
      measured.checks.push(
        checkAppended('accept', name, { acked, entries, appendedRows, connections }),
        {
          bench: 'accept',
          name: `${name}: every answer a 200`,
          passed: result.refused === 0 && result.lost === 0,
          detail: `${result.refused} refused, ${result.lost} lost`,
        },
      );
      const requestsPerSecond = acked / result.seconds;
      runs.get(entries)?.push({
        requestsPerSecond,
        entriesPerSecond: requestsPerSecond * entries,
        p99Ms: result.latencyMs.p99,
        use,
      });
      options.say(`${name}: ${Math.round(requestsPerSecond * entries)} entries/s`);
    }
  }
  return runs;
}

function report(runs: ReadonlyMap<number, Run[]>, worker: boolean, measured: Measured): void {
  const beside = worker ? 'with the worker' : 'alone';
  const points: { x: number; y: number }[] = [];
  for (const [entries, list] of runs) {
    const of = (name: string): string => `${beside}, ${entries} a request${name}`;
    const metric = (name: string, unit: string, better: Metric['better'], values: number[]) => {
      const value = median(values);
      measured.metrics.push({ bench: 'accept', name: of(name), value, unit, better });
      return value;
    };
    const rates = list.map((run) => run.entriesPerSecond);
    points.push({ x: entries, y: metric('', 'entries/s', 'higher', rates) });
    metric(
      ': requests',
      'requests/s',
      'higher',
      list.map((run) => run.requestsPerSecond),
    );
    for (const name of ['api', 'redis', 'generator']) {
      const shares = list.map(({ use }) => coreShare(use, [name]));
      metric(`: CPU of ${name}`, '% of a core', 'none', shares);
    }
  }
  measured.series.push({ bench: 'accept', plot: 'batch', label: `accepted, ${beside}`, points });
}
