import { setTimeout as delay } from 'node:timers/promises';
import { integerIn, type Random } from '../simulator/random.ts';
import { stopPastSilence } from './long-stop.ts';
import type { FaultStores } from './oracle.ts';
import type { Servers } from './servers.ts';

export const scenarioNames = [
  'stopped-worker',
  'stopped-worker-long',
  'lost-replies',
  'redis-full',
  'store-away',
  'store-away-long',
  'late-repeats',
] as const;
export type ScenarioName = (typeof scenarioNames)[number];

/** What a scenario gets. */
interface Scene {
  servers: Servers;
  stores: FaultStores;
  random: Random;
  round: number;
  /** How long a store is away in `store-away-long`. */
  awaySeconds: number;
}

/** Does something to the servers while the nodes of a round post. Returns what it did. */
export type Scenario = (scene: Scene) => Promise<string>;

const awayStores = ['redis', 'clickhouse', 'postgres'] as const;

/** Longer than a job's lock and BullMQ's check for stalled jobs (src/load/worker.ts): 5 and 2.5 s. */
const stoppedMs = 9_000;
const awayMs = { min: 3_000, max: 8_000 };
const fullMs = { min: 800, max: 2_500 };
const cuts = 24;
const cutMsMax = 120;

export const scenarios: Partial<Record<ScenarioName, Scenario>> = {
  /**
   * Stops a worker in the middle of its work (SIGSTOP) while a second one runs. In most rounds its
   * connection to Postgres dies meanwhile, and the second one takes its streams over. Then it goes on.
   */
  'stopped-worker': async ({ servers, random }) => {
    await delay(random() * 800);
    const pid = servers.processes.get('worker')?.pid();
    if (pid === undefined) throw new Error('no worker to stop');
    process.kill(pid, 'SIGSTOP');
    try {
      const loseLocks = random() < 0.7;
      if (loseLocks) servers.processes.get('postgres')?.kill(100);
      await delay(stoppedMs);
      return `worker stopped for ${stoppedMs / 1_000} s${loseLocks ? ', its locks lost' : ''}`;
    } finally {
      process.kill(pid, 'SIGCONT');
    }
  },

  /** The same, until Postgres ends the session that holds the worker's streams. */
  'stopped-worker-long': ({ servers, stores, round }) => stopPastSilence(servers, stores, round),

  /** Requests go through and their replies are lost, between nodes and Core or between Core and a store. */
  'lost-replies': async ({ servers, random }) => {
    const proxies = [...servers.proxies];
    const before = new Map(proxies.map(([name, proxy]) => [name, proxy.lost()]));
    for (let cut = 0; cut < cuts; cut += 1) {
      const [, proxy] = proxies[cut % proxies.length] ?? [];
      if (proxy === undefined) throw new Error('no proxies were started');
      await delay(random() * 60);
      proxy.cut();
      await delay(random() * cutMsMax);
      proxy.pass();
    }
    const lost = proxies.map(
      ([name, proxy]) => `${proxy.lost() - (before.get(name) ?? 0)} ${name}`,
    );
    return `replies lost: ${lost.join(', ')}`;
  },

  /** Redis has no memory left and refuses every write. */
  'redis-full': async ({ stores: { redis }, random }) => {
    await delay(random() * 400);
    await redis.config('SET', 'maxmemory', '1');
    const ms = integerIn(random, fullMs.min, fullMs.max);
    await delay(ms);
    await redis.config('SET', 'maxmemory', '0');
    return `Redis full for ${ms} ms`;
  },

  /** A store is away for some seconds. */
  'store-away': async ({ servers, random }) => {
    const name = awayStores[Math.floor(random() * awayStores.length)] ?? 'redis';
    await delay(random() * 400);
    const ms = integerIn(random, awayMs.min, awayMs.max);
    servers.processes.get(name)?.kill(ms);
    await delay(ms);
    return `${name} away for ${ms} ms`;
  },

  /** The stores are away by turns, one a round, each for a minute. Nodes post all the time. */
  'store-away-long': async ({ servers, round, awaySeconds }) => {
    const name = awayStores[(round - 1) % awayStores.length] ?? 'redis';
    await delay(steadyMs);
    servers.processes.get(name)?.kill(awaySeconds * 1_000);
    await delay(awaySeconds * 1_000);
    await servers.processes.get(name)?.up();
    await delay(steadyMs);
    return `${name} away for ${awaySeconds} s`;
  },
};

/** Nodes post for this long before and after a long outage. */
const steadyMs = 2_000;
/** In these scenarios nodes post until the end, and the harness judges every answer. */
export const lastingScenarios: readonly (ScenarioName | undefined)[] = [
  'store-away-long',
  'stopped-worker-long',
];
/** Share of posts with a number: in this scenario nothing else tells a repeat. */
export function numberedShareOf(scenario: ScenarioName | undefined): number {
  return scenario === 'late-repeats' ? 1 : 0.4;
}
/** Scenarios with a second worker. */
export const pairedScenarios: readonly (ScenarioName | undefined)[] = [
  'stopped-worker',
  'stopped-worker-long',
];
