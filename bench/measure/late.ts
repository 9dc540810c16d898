import { setTimeout as delay } from 'node:timers/promises';
import { limits } from '../../src/contract/limits.ts';
import { Lifecycle } from '../../src/lifecycle.ts';
import { attempt, createTarget, type Target } from '../../test/harness/simulator/client.ts';
import { type BenchCore, startBenchCore } from './core.ts';
import { type BenchOptions, emptyMeasured, type Measured, type Metric } from './metric.ts';
import { checkSettled, untilDrained } from './standing.ts';
import { median, percentile } from './statistics.ts';
import { createBenchWorld } from './world.ts';

/** Pauses between the posts of the honest node, and of the one that sends old rows. */
const honestEveryMs = 100;
const oldEveryMs = 50;
/** Every figure is rounded up to it. */
const lookEveryMs = 10;
const settleMsMax = 180_000;
const drainMsMax = 600_000;
const timeoutMs = 30_000;

/** A node that posts, and the one subscription that has its traffic. */
interface Sender {
  target: Target;
  key: string;
  userId: number;
  subscriptionId: number;
  nodeProtocolId: number;
}

/**
 * The time from the 200 of an honest node's row until its counter holds the row: alone, and while another
 * node sends posts that each have a row of every month since 2020. Each row of the honest node adds one
 * byte to a counter of its own, so the counter tells how many of its rows are settled.
 */
export async function measureLate(options: BenchOptions): Promise<Measured> {
  const lifecycle = new Lifecycle();
  const measured = emptyMeasured();
  const waits = { alone: [] as number[][], beside: [] as number[][] };
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: true });
    const [honest, old] = await createSenders(core);
    const seconds = options.seconds / 2;
    for (let round = 1; round <= options.rounds; round += 1) {
      options.say(`round ${round} of ${options.rounds}: ${seconds} s alone, ${seconds} s beside`);
      waits.alone.push(await measureWaits(core, honest, seconds, options.signal));
      const ending = new AbortController();
      const posting = postOld(old, AbortSignal.any([ending.signal, options.signal]));
      try {
        waits.beside.push(await measureWaits(core, honest, seconds, options.signal));
      } finally {
        ending.abort();
      }
      options.say(`${await posting} posts of old rows; draining`);
      await untilDrained(core, drainMsMax);
    }
    const { appendedRows } = await untilDrained(core, drainMsMax);
    measured.checks.push(...(await checkSettled('late', core, appendedRows)));
  } finally {
    await lifecycle.close();
  }
  measured.metrics.push(...metricsOf(waits));
  return measured;
}

async function createSenders(core: BenchCore): Promise<[honest: Sender, old: Sender]> {
  const world = await createBenchWorld(core.pool, core.config, { nodes: 2, subscriptions: 2 });
  const sender = (index: 0 | 1): Sender => ({
    target: createTarget(core.url),
    key: world.keys[index] as string,
    userId: world.userIds[index] as number,
    subscriptionId: world.subscriptionIds[index] as number,
    nodeProtocolId: world.nodeProtocolIds[index] as number,
  });
  return [sender(0), sender(1)];
}

/** Posts for `seconds` and waits for the counter. Returns how many milliseconds each row waited. */
async function measureWaits(
  core: BenchCore,
  honest: Sender,
  seconds: number,
  signal: AbortSignal,
): Promise<number[]> {
  const before = await counterOf(core, honest);
  const ackedAtMs: number[] = [];
  const waits: number[] = [];
  let posting = true;
  const send = async (): Promise<void> => {
    const endMs = performance.now() + seconds * 1_000;
    while (performance.now() < endMs) {
      await post(honest, [{ bytesDown: 1, recordedAt: new Date().toISOString() }], signal);
      ackedAtMs.push(performance.now());
      await delay(honestEveryMs, undefined, { signal });
    }
    posting = false;
  };
  const look = async (): Promise<void> => {
    let giveUpAtMs = Number.POSITIVE_INFINITY;
    while (posting || waits.length < ackedAtMs.length) {
      const counted = (await counterOf(core, honest)) - before;
      const nowMs = performance.now();
      // A row may be settled before its 200 has come back.
      for (let n = waits.length; n < Math.min(counted, ackedAtMs.length); n += 1) {
        waits.push(nowMs - (ackedAtMs[n] as number));
      }
      if (!posting) giveUpAtMs = Math.min(giveUpAtMs, nowMs + settleMsMax);
      if (nowMs > giveUpAtMs)
        throw new Error(`a row was not settled within ${settleMsMax / 1_000} s`);
      await delay(lookEveryMs, undefined, { signal });
    }
  };
  await Promise.all([send(), look()]);
  return waits;
}

async function counterOf({ pool }: BenchCore, { subscriptionId }: Sender): Promise<number> {
  const { rows } = await pool.query<{ down: number }>(
    'SELECT traffic_bytes_down AS down FROM subscriptions WHERE id = $1',
    [subscriptionId],
  );
  return rows[0]?.down ?? 0;
}

/** Sends posts with a row of each month that Core takes, until `signal`. Returns their number. */
async function postOld(old: Sender, signal: AbortSignal): Promise<number> {
  let posts = 0;
  for (; !signal.aborted; posts += 1) {
    const entries: { bytesDown: number; recordedAt: string }[] = [];
    const at = new Date(limits.earliestMs);
    for (; at.getTime() < Date.now(); at.setUTCMonth(at.getUTCMonth() + 1)) {
      // The bytes differ from post to post, since Core would drop a copy.
      entries.push({ bytesDown: posts, recordedAt: at.toISOString() });
    }
    try {
      await post(old, entries, signal);
      await delay(oldEveryMs, undefined, { signal });
    } catch (thrown) {
      if (!signal.aborted) throw thrown;
    }
  }
  return posts;
}

/** @throws Error if the answer is not a 200. */
async function post(
  sender: Sender,
  rows: readonly { bytesDown: number; recordedAt: string }[],
  signal: AbortSignal,
): Promise<void> {
  const { target, key, userId, subscriptionId, nodeProtocolId } = sender;
  const common = { userId, subscriptionId, nodeProtocolId, bytesUp: 0 };
  const entries = rows.map((row) => ({ ...common, ...row }));
  const answer = await attempt(
    target,
    {
      method: 'POST',
      path: '/node/usage',
      headers: { 'content-type': 'application/json', 'x-node-auth-key': key },
      body: Buffer.from(JSON.stringify({ entries })),
    },
    { timeoutMs, signal },
  );
  if (answer.kind === 'answered' && answer.status === 200) return;
  throw new Error(
    `a post was answered with ${answer.kind === 'answered' ? answer.status : answer.reason}`,
  );
}

function metricsOf(waits: Record<'alone' | 'beside', readonly number[][]>): Metric[] {
  const names = { alone: 'alone', beside: 'beside rows of 83 months a post' } as const;
  const figure = (who: keyof typeof names, share: number): number =>
    median(waits[who].map((round) => percentile(round, share)));
  const metrics: Metric[] = [];
  for (const who of ['alone', 'beside'] as const) {
    for (const [name, share] of [['p50', 0.5] as const, ['p99', 0.99] as const]) {
      metrics.push({
        bench: 'late',
        name: `200 to counter, ${names[who]}, ${name}`,
        value: figure(who, share),
        unit: 'ms',
        better: 'lower',
      });
    }
  }
  return metrics;
}
