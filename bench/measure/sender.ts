import { setTimeout as delay } from 'node:timers/promises';
import type { BodySet } from './bodies.ts';
import type { BenchCore } from './core.ts';
import { createProcessSampler, type ProcessUse } from './processes.ts';
import type { BenchWorld } from './world.ts';
import { runWrk, startWrk, type WrkPlan, type WrkResult } from './wrk.ts';

/** The end of a run, when wrk closes its connections, does not count in CPU figures. */
const tailMs = 300;

let seeds = 0;

/** A plan that posts usage to Core. The keys of the first `nodes` nodes take turns. */
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

/** Heartbeats of each node in `introduceNodes`: enough for each api process to see each key. */
const heartbeatsFirst = 10;
const heartbeatsFirstPerSecond = 10_000;

/** A plan that posts heartbeats. The keys of all nodes take turns. */
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
 * Sends heartbeats so that each api process knows each node. A real node stays on one connection, and
 * Core looks its key up in Postgres once an hour. Here the keys take turns on all connections, so
 * without this Core would look keys up during the first minutes.
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

/** Runs wrk to its end, and measures the CPU of wrk and of Core's processes meanwhile. */
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
