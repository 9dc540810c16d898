import type pg from 'pg';
import { createNode, revokeNode } from '../src/nodes/change.ts';
import { addProtocol } from '../src/settings/protocols.ts';
import { createSubscription } from '../src/subscriptions/create.ts';
import { deleteUser } from '../src/subscriptions/delete.ts';
import { createUser } from '../src/subscriptions/users.ts';
import { percentile } from './measure/statistics.ts';

export interface LimitsOptions {
  /** Where Core's api listens; a worker must run too. */
  url: string;
  /** How many are taken over their limits, one after another. */
  subscriptions: number;
  signal: AbortSignal;
}

export interface LimitsReport {
  subscriptions: number;
  /** From the 200 of the post that crosses the limit … */
  needSyncMs: Percentiles;
  /** … and until the link is gone from the config that the node fetches then. */
  linkGoneMs: Percentiles;
}

interface Percentiles {
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

const trafficLimitBytes = 1_000_000;
/** How often the node asks; what is measured is rounded up to it. */
const askEveryMs = 10;
/** A limit that has no effect by then is a failure. */
const effectMsMax = 30_000;

/**
 * Limit latency: takes subscriptions over their limits, one right after another, so that each change
 * of the node's config comes within a second of the last one, and measures how soon the node is told
 * and the link is gone. Makes a node and a user of its own and takes them away again.
 */
export async function run(pool: pg.Pool, options: LimitsOptions): Promise<LimitsReport> {
  const node = await register(pool, options.url);
  const { nodeProtocolId } = await addProtocol(pool, {
    nodeId: node.nodeId,
    protocol: 'VLESS',
    port: 443,
    settings: {},
  });
  const userId = await createUser(pool, { name: 'bench limits' });
  try {
    const members: { subscriptionId: number; uuid: string }[] = [];
    for (let n = 0; n < options.subscriptions; n += 1) {
      const made = await createSubscription(pool, { userId, trafficLimitBytes, expiresAt: null });
      const link = made.links.find((each) => each.nodeProtocolId === nodeProtocolId);
      if (link === undefined) throw new Error('a new subscription has no link');
      members.push({ subscriptionId: made.subscriptionId, uuid: link.uuid });
    }
    const last = members.at(-1)?.uuid ?? '';
    let config = await untilConfig(node, (text) => text.includes(last));
    const needSyncMs: number[] = [];
    const linkGoneMs: number[] = [];
    for (const { subscriptionId, uuid } of members) {
      options.signal.throwIfAborted();
      await node.post('/node/usage', {
        entries: [
          {
            userId,
            subscriptionId,
            nodeProtocolId,
            bytesUp: 0,
            bytesDown: trafficLimitBytes,
            recordedAt: new Date().toISOString(),
          },
        ],
      });
      const fromMs = performance.now();
      await untilNeedSync(node, config.revision);
      needSyncMs.push(performance.now() - fromMs);
      config = await untilConfig(node, (text) => !text.includes(uuid));
      linkGoneMs.push(performance.now() - fromMs);
    }
    return {
      subscriptions: members.length,
      needSyncMs: percentiles(needSyncMs),
      linkGoneMs: percentiles(linkGoneMs),
    };
  } finally {
    await deleteUser(pool, userId, { force: true });
    await revokeNode(pool, node.nodeId);
  }
}

interface BenchNode {
  nodeId: number;
  post(path: string, body: unknown): Promise<Record<string, unknown>>;
  config(): Promise<string>;
}

async function register(pool: pg.Pool, url: string): Promise<BenchNode> {
  const about = { name: 'bench-limits', region: '', host: 'localhost', ip: '' };
  const { nodeId, code } = await createNode(pool, about, { registrationSeconds: 60 });
  const call = async (path: string, init: RequestInit): Promise<Response> => {
    const response = await fetch(url + path, { ...init, signal: AbortSignal.timeout(10_000) });
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
    await new Promise((resume) => setTimeout(resume, askEveryMs));
  }
  throw new Error(`${fault} within ${effectMsMax} ms`);
}

function percentiles(valuesMs: readonly number[]): Percentiles {
  const at = (share: number): number => Math.round(percentile(valuesMs, share));
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) };
}
