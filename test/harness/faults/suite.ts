import { rmSync } from 'node:fs';
import { Redis } from 'ioredis';
import { Lifecycle } from '../../../src/lifecycle.ts';
import { createClickHouse } from '../../../src/stores/clickhouse.ts';
import { createPool } from '../../../src/stores/postgres.ts';
import { residentBytes } from '../memory.ts';
import { lateRepeatSettings } from './late-repeats.ts';
import { type FaultStores, findViolations, type Violation } from './oracle.ts';
import type { Removal } from './removals.ts';
import {
  addRound,
  addViolations,
  createSummary,
  isClean,
  roundLine,
  type Summary,
} from './report.ts';
import { type RoundContext, runRound } from './round.ts';
import {
  lastingScenarios,
  numberedShareOf,
  pairedScenarios,
  type ScenarioName,
  scenarios,
} from './scenarios.ts';
import { type FaultMix, planRound } from './schedule.ts';
import { type Servers, startServers } from './servers.ts';
import { createFaultLedger } from './traffic.ts';
import { createFaultWorld } from './world.ts';

export interface SuiteOptions {
  rounds: number;
  /** Number of the first round. What a round does depends on the seed and on its number alone. */
  from: number;
  seed: number;
  mix: FaultMix;
  removal: Removal | undefined;
  /** Played in every round instead of the kills. */
  scenario: ScenarioName | undefined;
  /** Insert tokens that ClickHouse remembers for each table; undefined leaves Core's own setting. */
  window: number | undefined;
  say: (line: string) => void;
  interrupted: AbortSignal;
  /** How long a store is away in `store-away-long`. */
  awaySeconds?: number;
}

export interface SuiteResult {
  summary: Summary;
  violations: Violation[];
  /** The folder with logs and stores. It is kept if there was a violation. */
  dataDir: string | undefined;
}

const trafficMsMax = 45_000;
const drainMsMax = 60_000;
/** Without a protection a stream may never drain. */
const drainMsMaxRemoved = 15_000;
const residentBytesMax = 600 * 1_048_576;

/**
 * Plays rounds until all are done, one has a violation, or somebody interrupts. If there was no
 * violation, it checks every post of all rounds once more at the end.
 */
export async function runSuite(options: SuiteOptions): Promise<SuiteResult> {
  const { seed, removal, say, awaySeconds = 60 } = options;
  const lasting = lastingScenarios.includes(options.scenario);
  const lifecycle = new Lifecycle();
  const summary = createSummary(seed);
  const violations: Violation[] = [];
  const startedMs = performance.now();
  let servers: Servers | undefined;
  try {
    say('starting Postgres, Redis, ClickHouse, api and worker');
    const { scenario } = options;
    const workers = pairedScenarios.includes(scenario) ? 2 : options.mix.workers;
    const hasProxies = scenario === 'lost-replies';
    const settings = scenario === 'late-repeats' ? lateRepeatSettings : {};
    servers = await startServers(lifecycle, { removal, hasProxies, workers, settings });
    const stores = openStores(servers, lifecycle);
    if (options.window !== undefined) await setWindow(stores, options.window);
    const world = await createFaultWorld(stores.pool);
    const ledger = createFaultLedger();
    const context: RoundContext = {
      servers,
      stores,
      world,
      ledger,
      seed,
      trafficMsMax: trafficMsMax + (lasting ? awaySeconds * 1_000 : 0),
      lasting,
      awaySeconds,
      scenario: scenario === undefined ? undefined : scenarios[scenario],
      numberedShare: numberedShareOf(scenario),
      repeatsLate: scenario === 'late-repeats',
      drainMsMax: removal === undefined ? drainMsMax : drainMsMaxRemoved,
    };
    const last = options.from + options.rounds - 1;
    for (let round = options.from; round <= last && !options.interrupted.aborted; round += 1) {
      const result = await runRound(context, planRound(seed, round, options.mix));
      addRound(summary, result);
      watchMemory(servers, summary);
      say(roundLine(result, last));
      violations.push(...result.violations);
      if (result.violations.length > 0) break;
    }
    summary.attempts = ledger.attempts;
    for (const [status, count] of ledger.answers) summary.answers[status] = count;
    if (isClean(summary)) {
      const { posts } = ledger;
      const { redisPrefix: prefix } = servers.config.stores;
      const again = await findViolations(stores, { posts, allPosts: posts, world, prefix });
      again.violations.push(...judgeMemory(summary));
      addViolations(summary, again.violations);
      violations.push(...again.violations);
    }
  } finally {
    await lifecycle.close();
    summary.seconds = (performance.now() - startedMs) / 1_000;
  }
  const keep = violations.length > 0 && removal === undefined;
  if (!keep) rmSync(servers.dataDir, { recursive: true, force: true });
  return { summary, violations, dataDir: keep ? servers.dataDir : undefined };
}

/** The harness' own connections. They reconnect by themselves. */
export function openStores(servers: Servers, lifecycle: Lifecycle): FaultStores {
  const { postgresUrl, redisUrl, clickhouseUrl } = servers.config.stores;
  const pool = createPool(postgresUrl, { max: 3 });
  lifecycle.use('harness postgres', () => pool.end());
  const redis = new Redis(redisUrl, { maxRetriesPerRequest: 3, commandTimeout: 5_000 });
  redis.on('error', () => undefined);
  lifecycle.use('harness redis', () => redis.disconnect());
  const clickhouse = createClickHouse(clickhouseUrl);
  lifecycle.use('harness clickhouse', () => clickhouse.close());
  return { pool, redis, clickhouse };
}

async function setWindow({ clickhouse }: FaultStores, tokens: number): Promise<void> {
  for (const table of ['usage', 'session_events']) {
    await clickhouse.command({
      query: `ALTER TABLE ${table} MODIFY SETTING non_replicated_deduplication_window = ${tokens}`,
    });
  }
}

function watchMemory(servers: Servers, summary: Summary): void {
  for (const name of ['api', 'worker'] as const) {
    const bytes = residentBytes(servers.processes.get(name)?.pid()) ?? 0;
    summary.peakBytes[name] = Math.max(summary.peakBytes[name], bytes);
  }
}

function judgeMemory({ peakBytes }: Summary): Violation[] {
  return (['api', 'worker'] as const).flatMap((name) =>
    peakBytes[name] <= residentBytesMax
      ? []
      : [{ kind: 'other' as const, text: `other: ${name} grew to ${peakBytes[name]} bytes` }],
  );
}
