import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { Lifecycle } from '../../src/lifecycle.ts';
import { createNode } from '../../src/nodes/change.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { startBenchCore } from './core.ts';
import { type BenchOptions, emptyMeasured, type Measured, type Metric } from './metric.ts';
import { percentile } from './statistics.ts';

const subscriptionsWanted = 100;
const subscriptionsWantedQuick = 10;
const trafficLimitBytes = 1_000_000;
/** docs/agents.md promises this. */
const needSyncMsMax = 2_000;
/** How often the node asks. Every figure is rounded up to it. */
const askEveryMs = 10;
/** A limit without effect by then ends the bench with an error. */
const effectMsMax = 30_000;
const requestMsMax = 10_000;

const shares = [
  ['p50', 0.5],
  ['p90', 0.9],
  ['p99', 0.99],
  ['max', 1],
] as const;

/** Times of all subscriptions, from the 200 of the post that crosses the limit. */
interface Effects {
  /** Until a heartbeat asks for a sync. */
  needSyncMs: number[];
  /** Until the configuration that the node fetches has no link of the subscription. */
  linkGoneMs: number[];
}

/** One subscription of the bench's user, with its link on the bench's node. */
interface Member {
  subscriptionId: number;
  uuid: string;
}

/**
 * How soon a limit has effect, on a Core that does nothing else. The bench takes subscriptions over their
 * limits, one right after another. So each change of the node's configuration comes within a second of the
 * last one. That is the worst case, because a node has at most one new revision a second.
 */
export async function measureLimits(options: BenchOptions): Promise<Measured> {
  const lifecycle = new Lifecycle();
  const measured = emptyMeasured();
  const count = options.quick ? subscriptionsWantedQuick : subscriptionsWanted;
  try {
    const core = await startBenchCore(lifecycle, { ...options, worker: true });
    options.say(`taking ${count} subscriptions over their limits`);
    const effects = await crossLimits(core.pool, core.url, count, options.signal);
    measured.metrics.push(
      ...metricsOf('200 of the crossing post to needSync', effects.needSyncMs, needSyncMsMax),
      ...metricsOf('200 of the crossing post to a config without the link', effects.linkGoneMs),
    );
  } finally {
    await lifecycle.close();
  }
  return measured;
}

async function crossLimits(
  pool: pg.Pool,
  url: string,
  count: number,
  signal: AbortSignal,
): Promise<Effects> {
  const node = await registerNode(pool, url);
  const protocol = { protocol: 'VLESS', port: 443, settings: {} } as const;
  const { nodeProtocolId } = await addProtocol(pool, { nodeId: node.nodeId, ...protocol });
  const userId = await createUser(pool, { name: 'bench limits' });
  const members = await createMembers(pool, userId, nodeProtocolId, count);
  const last = members.at(-1)?.uuid ?? '';
  let config = await untilConfig(node, (text) => text.includes(last));
  const effects: Effects = { needSyncMs: [], linkGoneMs: [] };
  for (const { subscriptionId, uuid } of members) {
    signal.throwIfAborted();
    const recordedAt = new Date().toISOString();
    const traffic = { bytesUp: 0, bytesDown: trafficLimitBytes, recordedAt };
    await node.post('/node/usage', {
      entries: [{ userId, subscriptionId, nodeProtocolId, ...traffic }],
    });
    const fromMs = performance.now();
    await untilNeedSync(node, config.revision);
    effects.needSyncMs.push(performance.now() - fromMs);
    config = await untilConfig(node, (text) => !text.includes(uuid));
    effects.linkGoneMs.push(performance.now() - fromMs);
  }
  return effects;
}

async function createMembers(
  pool: pg.Pool,
  userId: number,
  nodeProtocolId: number,
  count: number,
): Promise<Member[]> {
  const members: Member[] = [];
  for (let n = 0; n < count; n += 1) {
    const made = await createSubscription(pool, { userId, trafficLimitBytes, expiresAt: null });
    const link = made.links.find((each) => each.nodeProtocolId === nodeProtocolId);
    if (link === undefined) throw new Error('a new subscription has no link');
    members.push({ subscriptionId: made.subscriptionId, uuid: link.uuid });
  }
  return members;
}

interface BenchNode {
  nodeId: number;
  post(path: string, body: unknown): Promise<Record<string, unknown>>;
  config(): Promise<string>;
}

async function registerNode(pool: pg.Pool, url: string): Promise<BenchNode> {
  const about = { name: 'bench-limits', region: '', host: 'localhost', ip: '' };
  const { nodeId, code } = await createNode(pool, about, { registrationSeconds: 60 });
  const call = async (path: string, init: RequestInit): Promise<Response> => {
    const response = await fetch(url + path, {
      ...init,
      signal: AbortSignal.timeout(requestMsMax),
    });
    if (response.status === 200) return response;
    throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
  };
  const headers: Record<string, string> = { 'content-type': 'application/json' };
  const post: BenchNode['post'] = async (path, body) => {
    const response = await call(path, { method: 'POST', headers, body: JSON.stringify(body) });
    return (await response.json()) as Record<string, unknown>;
  };
  const { authKey } = await post('/node/register', { code, ...about });
  headers['x-node-auth-key'] = String(authKey);
  return {
    nodeId,
    post,
    config: async () => (await call('/node/config/latest', { headers })).text(),
  };
}

async function untilNeedSync(node: BenchNode, revision: number): Promise<void> {
  await until('a heartbeat did not ask for a sync', async () => {
    const { needSync } = await node.post('/node/heartbeat', { revision });
    return needSync === true ? true : undefined;
  });
}

function untilConfig(
  node: BenchNode,
  isWanted: (text: string) => boolean,
): Promise<{ revision: number }> {
  return until('the config did not follow', async () => {
    const text = await node.config();
    return isWanted(text) ? (JSON.parse(text) as { revision: number }) : undefined;
  });
}

async function until<T>(fault: string, ask: () => Promise<T | undefined>): Promise<T> {
  const deadlineMs = performance.now() + effectMsMax;
  while (performance.now() < deadlineMs) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    await delay(askEveryMs);
  }
  throw new Error(`${fault} within ${effectMsMax} ms`);
}

function metricsOf(name: string, valuesMs: readonly number[], maxMsTarget?: number): Metric[] {
  return shares.map(([label, share]) => ({
    bench: 'limits',
    name: `${name}, ${label}`,
    value: Math.round(percentile(valuesMs, share)),
    unit: 'ms',
    better: 'lower',
    ...(label === 'max' && maxMsTarget !== undefined ? { target: { max: maxMsTarget } } : {}),
  }));
}
