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
] as const;
export type ScenarioName = (typeof scenarioNames)[number];

/** What a scenario may look at and use. */
interface Scene {
  servers: Servers;
  stores: FaultStores;
  random: Random;
  /** Number of the round. */
  round: number;
  /** How long a store is gone in `store-away-long`. */
  awaySeconds: number;
}

/** What is done to the servers while a round's posts are under way. Says what it did. */
export type Scenario = (scene: Scene) => Promise<string>;

const awayStores = ['redis', 'clickhouse', 'postgres'] as const;

/** Past BullMQ's lock and its look for stalled jobs (worker.ts), both of which are a few seconds. */
const stoppedMs = 9_000;
const awayMs = { min: 3_000, max: 8_000 };
const fullMs = { min: 800, max: 2_500 };
const cuts = 24;
const cutMsMax = 120;

export const scenarios: Record<ScenarioName, Scenario> = {
  /**
   * A worker stands still in the middle of its work (SIGSTOP) while another one is there. Where its
   * connection to Postgres dies meanwhile, the other takes its streams over; then it wakes up.
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

  /** Long enough for Postgres to end the session with which the worker holds its streams. */
  'stopped-worker-long': ({ servers, stores, round }) => stopPastSilence(servers, stores, round),

  /** Requests go through and their replies are lost, at Core's own door or at that of a store. */
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

  /** Redis refuses every write for want of memory. */
  'redis-full': async ({ stores: { redis }, random }) => {
    await delay(random() * 400);
    await redis.config('SET', 'maxmemory', '1');
    const ms = integerIn(random, fullMs.min, fullMs.max);
    await delay(ms);
    await redis.config('SET', 'maxmemory', '0');
    return `Redis full for ${ms} ms`;
  },

  /** A store is gone for some seconds. */
  'store-away': async ({ servers, random }) => {
    const name = awayStores[Math.floor(random() * awayStores.length)] ?? 'redis';
    await delay(random() * 400);
    const ms = integerIn(random, awayMs.min, awayMs.max);
    servers.processes.get(name)?.kill(ms);
    await delay(ms);
    return `${name} away for ${ms} ms`;
  },

  /** A store is gone for a minute, each in its turn, while posts go on all the time. */
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

/** Posts before and after a long outage. */
const steadyMs = 2_000;
/** Scenarios during which nodes post for as long as they last, and every answer is judged. */
export const lastingScenarios: readonly (ScenarioName | undefined)[] = [
  'store-away-long',
  'stopped-worker-long',
];
/** Scenarios with a second worker. */
export const pairedScenarios: readonly (ScenarioName | undefined)[] = [
  'stopped-worker',
  'stopped-worker-long',
];
