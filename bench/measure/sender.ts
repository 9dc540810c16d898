import { setTimeout as delay } from 'node:timers/promises';
import type { BodySet } from './bodies.ts';
import type { BenchCore } from './core.ts';
import { createProcessSampler, type ProcessUse } from './processes.ts';
import type { BenchWorld } from './world.ts';
import { runWrk, startWrk, type WrkPlan, type WrkResult } from './wrk.ts';

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

/** So many heartbeats of each node come first, so that each api process has seen each key. */
const heartbeatsFirst = 10;
const heartbeatsFirstPerSecond = 10_000;

/** A plan that posts heartbeats, with the keys of all nodes taking turns. */
export function heartbeatPlan(
  core: BenchCore,
  world: BenchWorld,
  run: { connections: number; seconds: number; rate: number },
): WrkPlan {
  return {
    url: core.url,
    method: 'POST',
    path: '/node/heartbeat',
    headers: { 'content-type': 'application/json' },
    keys: { header: 'x-node-auth-key', values: world.keys },
    fixedBody: '{"revision":1}',
    seed: 1,
    ...run,
  };
}

/**
 * Lets each api process see each node. A node stays on a connection, and its key is asked for once an
 * hour; a sender whose keys take turns on all connections would make Core ask Postgres for minutes.
 */
export async function introduceNodes(
  core: BenchCore,
  world: BenchWorld,
  connections: number,
): Promise<void> {
  const rate = heartbeatsFirstPerSecond;
  const seconds = Math.ceil((world.keys.length * heartbeatsFirst) / rate);
  await runWrk(heartbeatPlan(core, world, { connections, seconds, rate }));
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
