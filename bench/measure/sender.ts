import { setTimeout as delay } from 'node:timers/promises';
import type { BodySet } from './bodies.ts';
import type { BenchCore } from './core.ts';
import { createProcessSampler, type ProcessUse } from './processes.ts';
import type { BenchWorld } from './world.ts';
import { startWrk, type WrkPlan, type WrkResult } from './wrk.ts';

/** A run's last moments, when connections are already being closed, count for no CPU figure. */
const tailMs = 300;

let seeds = 0;

/** A plan that posts usage to Core, with the keys of the first `nodes` nodes taking turns. */
export function usagePlan(
  core: BenchCore,
  world: BenchWorld,
  run: { bodies: BodySet; connections: number; seconds: number; nodes?: number; rate?: number },
): WrkPlan {
  seeds += 1;
  return {
    url: core.url,
    method: 'POST',
    path: '/node/usage',
    headers: { 'content-type': 'application/json' },
    keys: { header: 'x-node-auth-key', values: world.keys.slice(0, run.nodes) },
    bodies: run.bodies,
    connections: run.connections,
    seconds: run.seconds,
    seed: seeds,
    ...(run.rate === undefined ? {} : { rate: run.rate }),
  };
}

/** Runs wrk to its end, and measures what it and Core's processes use meanwhile. */
export async function measureWrk(
  core: Pick<BenchCore, 'roots'>,
  plan: WrkPlan,
): Promise<{ result: WrkResult; use: ProcessUse }> {
  const run = await startWrk(plan);
  const { pid } = run;
  const sampler = createProcessSampler(() => ({
    ...core.roots(),
    ...(pid === undefined ? {} : { generator: pid }),
  }));
  sampler.start();
  await delay(plan.seconds * 1_000 - tailMs);
  const use = sampler.stop();
  return { result: await run.result, use };
}
