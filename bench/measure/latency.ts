import { fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Lifecycle } from '../../src/lifecycle.ts';
import { nodeFlags } from '../../src/processes/node-flags.ts';
import { projectRoot } from '../../src/root.ts';
import { type BenchCore, startBenchCore } from './core.ts';
import type { LatencyOrder, LatencyReport } from './latency-generator.ts';
import {
  type BenchOptions,
  emptyMeasured,
  type Measured,
  type Metric,
  measuredValue,
  sizesOf,
  type Target,
} from './metric.ts';
import { readKept } from './results.ts';
import { introduceNodes } from './sender.ts';
import { checkSettled, untilDrained } from './standing.ts';
import { percentile } from './statistics.ts';
import { type BenchWorld, createBenchWorld } from './world.ts';

const program = path.join(projectRoot, 'dist', 'bench', 'measure', 'latency-generator.js');
const batchSizes = [100, 500];
const warmSeconds = 10;
const warmSecondsQuick = 3;
/** Time between two marked requests. The bench looks for their rows in ClickHouse. */
const markEveryMs = 100;
/** The figure "200 to queryable" is rounded up to it. */
const lookEveryMs = 25;
const drainMsMax = 180_000;
/** The rate if e2e was never measured. */
const entriesPerSecondUsual = 100_000;

/**
 * Open loop: a process of its own sends each request at its appointed time, answered or not, at half
 * of the rate that the end-to-end bench sustained. A latency counts from the appointed time, so that a
 * stall shows in all requests that it held up (no coordinated omission).
 *
 * "200 to queryable": marked requests name a subscription of their own, and this process asks
 * ClickHouse for its rows every 25 ms. The figure is the time from the 200 to the answer with the row.
 */
export async function measureLatency(options: BenchOptions): Promise<Measured> {
  const measured = emptyMeasured();
  for (const entries of sizesOf(options, batchSizes)) {
    const lifecycle = new Lifecycle();
    try {
      const core = await startBenchCore(lifecycle, { ...options, worker: true });
      options.say(`creating ${options.nodes} nodes and ${options.subscriptions} subscriptions`);
      const world = await createBenchWorld(core.pool, core.config, options);
      await introduceNodes(core, world, options.connections);
      const entriesPerSecond = rateFor(entries, options);
      await measureSize(core, world, { ...options, entries, entriesPerSecond }, measured);
    } finally {
      await lifecycle.close();
    }
  }
  return measured;
}

/** The rate of `--rate`, or half of what e2e reached in this run or in the newest kept one. */
function rateFor(entries: number, options: BenchOptions): number {
  if (options.rate !== undefined) return options.rate;
  const kept = readKept(options.quick).map(({ metrics }) => metrics);
  for (const metrics of [options.earlier, ...kept.reverse()]) {
    const saturated = measuredValue(metrics, 'e2e', `${entries} a request`);
    if (saturated !== undefined) return saturated / 2;
  }
  options.say(`no end-to-end figure at ${entries} a request; sending ${entriesPerSecondUsual}/s`);
  return entriesPerSecondUsual;
}

async function measureSize(
  core: BenchCore,
  world: BenchWorld,
  options: BenchOptions & { entries: number; entriesPerSecond: number },
  measured: Measured,
): Promise<void> {
  const { entries, entriesPerSecond } = options;
  const name = `${entries} a request`;
  options.say(`${Math.round(entriesPerSecond)} entries/s, ${name}`);
  // No other request names it. The table is sorted by subscription, so its rows are found quickly.
  const markSubscriptionId = world.subscriptionIds.pop() as number;
  const order: LatencyOrder = {
    port: core.config.http.port,
    world,
    markSubscriptionId,
    markEveryMs,
    entries,
    requestsPerSecond: entriesPerSecond / entries,
    connections: 256,
    warmSeconds: options.quick ? warmSecondsQuick : warmSeconds,
    seconds: options.seconds,
  };
  const looking = new AbortController();
  const looker = look(core, markSubscriptionId, AbortSignal.any([looking.signal, options.signal]));
  let report: LatencyReport;
  try {
    report = await runGenerator(order, options.signal);
    options.say('draining');
    await untilDrained(core, drainMsMax);
    await delay(2 * lookEveryMs);
  } finally {
    looking.abort();
  }
  const seen = await looker;
  const { appendedRows } = await untilDrained(core, drainMsMax);
  const waits = report.marks.flatMap(({ number, ackedAtMs }) => {
    const seenAtMs = seen.get(number);
    return seenAtMs === undefined ? [] : [Math.max(0, seenAtMs - ackedAtMs)];
  });
  measured.checks.push(
    {
      bench: 'latency',
      name: `${name}: every request acked once`,
      passed: report.failed === 0 && appendedRows === report.acked * entries,
      detail: `${report.acked} acked, ${report.failed} failed ${JSON.stringify(report.failures)}, ${appendedRows} rows appended`,
    },
    {
      bench: 'latency',
      name: `${name}: marked rows found`,
      passed: waits.length === report.marks.length && waits.length > 0,
      detail: `${waits.length} of ${report.marks.length}`,
    },
    ...(await checkSettled('latency', core, appendedRows)),
  );
  measured.metrics.push(...metricsOf(name, entriesPerSecond, report, waits));
}

function metricsOf(
  name: string,
  entriesPerSecond: number,
  { latencyMs, lateMs }: LatencyReport,
  waits: readonly number[],
): Metric[] {
  const ms = (figure: string, value: number, target?: Target): Metric => ({
    bench: 'latency',
    name: `${name}: ${figure}`,
    value,
    unit: 'ms',
    better: 'lower',
    ...(target === undefined ? {} : { target }),
  });
  const metrics: Metric[] = [
    {
      bench: 'latency',
      name: `${name}: rate`,
      value: entriesPerSecond,
      unit: 'entries/s',
      better: 'none',
    },
    ms('accept p50', latencyMs.p50),
    ms('accept p99', latencyMs.p99, { max: 15 }),
    ms('accept p99.9', latencyMs.p999, { max: 50 }),
    ms('accept, longest', latencyMs.max),
    ms('of these, late in the sender itself, p99', lateMs.p99),
  ];
  if (waits.length === 0) return metrics;
  return [
    ...metrics,
    ms('200 to queryable p50', percentile(waits, 0.5)),
    ms('200 to queryable p99', percentile(waits, 0.99), { max: 1_500 }),
  ];
}

async function runGenerator(order: LatencyOrder, signal: AbortSignal): Promise<LatencyReport> {
  const child = fork(program, {
    execArgv: [...nodeFlags],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  try {
    child.send(order);
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the sender ended with code ${code}`);
    });
    ended.catch(() => undefined);
    const answered = once(child, 'message', { signal });
    const [report] = (await Promise.race([answered, ended])) as [LatencyReport];
    return report;
  } finally {
    child.kill('SIGKILL');
  }
}

/** When each marked row was first seen in ClickHouse, by its request's number. */
async function look(
  core: BenchCore,
  subscriptionId: number,
  signal: AbortSignal,
): Promise<Map<number, number>> {
  const seen = new Map<number, number>();
  while (!signal.aborted) {
    const result = await core.clickhouse.query({
      query: 'SELECT bytes_up, bytes_down FROM usage WHERE subscription_id = {id:UInt64}',
      query_params: { id: subscriptionId },
      format: 'JSONEachRow',
    });
    const rows = await result.json<{ bytes_up: number; bytes_down: number }>();
    const nowMs = Date.now();
    for (const row of rows) {
      // numberBody writes after the first digit of eight in bytes_up, and of ten in bytes_down.
      const high = Math.floor(row.bytes_up / 1_000) % 10_000;
      const number = high * 10_000 + (Math.floor(row.bytes_down / 100_000) % 10_000);
      if (!seen.has(number)) seen.set(number, nowMs);
    }
    await delay(lookEveryMs, undefined, { signal }).catch(() => undefined);
  }
  return seen;
}
