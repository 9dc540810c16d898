import { Lifecycle } from '../../../src/lifecycle.ts';
import { createBodies } from '../bodies.ts';
import { startBenchCore } from '../core.ts';
import type { BenchOptions } from '../metric.ts';
import { usagePlan } from '../sender.ts';
import { checkAppended, emptySpool, untilStill } from '../standing.ts';
import { createBenchWorld } from '../world.ts';
import { runWrk } from '../wrk.ts';
import type { Turn } from './peer.ts';
import { bodySeed, runSeconds, type TurnPlan, warmSeconds } from './turn.ts';

export const coreAlone = 'Core, accept alone';
export const coreWithWorker = 'Core, with the worker';

/** Core's turn: accept with the worker stopped, then with the worker loading meanwhile. */
export async function measureCore(options: BenchOptions, turn: TurnPlan): Promise<Turn> {
  const lifecycle = new Lifecycle();
  const found: Turn = { rates: [], checks: [] };
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: false });
    const world = await createBenchWorld(core.pool, core.config, options);
    const { connections } = options;
    for (const entries of turn.batchSizes) {
      const bodies = createBodies(world, { entries, seed: bodySeed, atMs: Date.now() });
      const plan = { bodies, connections };
      await runWrk(usagePlan(core, world, { ...plan, seconds: warmSeconds(options) }));
      await untilStill(core);
      await emptySpool(core);
      for (const name of [coreAlone, coreWithWorker]) {
        options.signal.throwIfAborted();
        if (name === coreWithWorker) await core.startWorker();
        const result = await runWrk(
          usagePlan(core, world, { ...plan, seconds: runSeconds(options) }),
        );
        const { appendedRows } = await untilStill(core);
        await core.stopWorker();
        await emptySpool(core);
        const run = { acked: result.ok, entries, appendedRows, connections };
        found.checks.push(
          checkAppended('peers', `${name}, ${entries} a request, round ${turn.round}`, run),
        );
        found.rates.push({
          name,
          entries,
          entriesPerSecond: (result.ok * entries) / result.seconds,
        });
      }
    }
  } finally {
    await lifecycle.close();
  }
  return found;
}
