import { randomUUID } from 'node:crypto';
import type { RecordableHistogram } from 'node:perf_hooks';
import { createClock } from './bodies.ts';
import { createTarget } from './client.ts';
import { type DeliverContext, type Delivery, deliver } from './deliver.ts';
import { type Ledger, recordUnexpected } from './ledger.ts';
import type { FleetOptions } from './options.ts';
import { createRandom, nodeSeed, type Random } from './random.ts';
import type { FleetNode } from './world.ts';

/** One simulated node: what it has in memory, and how it reaches Core. loops.ts runs it. */
export interface Agent {
  node: FleetNode;
  options: FleetOptions;
  random: Random;
  ledger: Ledger;
  delivery: DeliverContext;
  entriesMax: number;
  authKey: string;
  /** Its stream of numbered posts, and the greatest number that it has used. Every second agent has one. */
  numbers: { stream: string; greatest: number } | undefined;
  config: AgentConfigState;
  nextMs: () => number;
  online: Set<number>;
  /** Aborted when the run ends. The agent begins nothing new, but still repeats unanswered posts. */
  stop: AbortController;
  /** Aborted when the drain ends. The agent sends nothing after it. */
  end: AbortController;
}

/** What an agent remembers of the configuration that it runs. */
interface AgentConfigState {
  /** The revision that Core has acknowledged as applied. */
  applied: number | undefined;
  /** A report of an applied revision got no answer, so Core may have a newer one than `applied`. */
  appliedUnknown: boolean;
  etag: string | undefined;
  revision: number | undefined;
  pulls: number;
  notModified: number;
  /** Links for which the last client map has no user and subscription, or wrong ones. */
  wrongClients: number;
}

function startConfigState(): AgentConfigState {
  return {
    applied: undefined,
    appliedUnknown: false,
    etag: undefined,
    revision: undefined,
    pulls: 0,
    notModified: 0,
    wrongClients: 0,
  };
}

export function createAgent(
  node: FleetNode,
  shared: {
    options: FleetOptions;
    ledger: Ledger;
    latencyUs: RecordableHistogram;
    entriesMax: number;
  },
): Agent {
  const random = createRandom(nodeSeed(shared.options.seed, node.index));
  const end = new AbortController();
  return {
    node,
    options: shared.options,
    random,
    ledger: shared.ledger,
    delivery: {
      target: createTarget(shared.options.url),
      ledger: shared.ledger,
      random,
      latencyUs: shared.latencyUs,
      timeoutMs: shared.options.timeoutMs,
      end: end.signal,
    },
    entriesMax: shared.entriesMax,
    authKey: '',
    numbers: node.index % 2 === 0 ? { stream: randomUUID(), greatest: 0 } : undefined,
    config: startConfigState(),
    nextMs: createClock(Date.now),
    online: new Set(),
    stop: new AbortController(),
    end,
  };
}

/** Sends a post that leaves no rows, and records a refusal as unexpected. */
export async function send(
  agent: Agent,
  kind: 'heartbeat' | 'applied',
  path: string,
  body: Record<string, unknown>,
): Promise<Delivery> {
  const end = await deliver(agent.delivery, kind, {
    method: 'POST',
    path,
    headers: { 'content-type': 'application/json', 'x-node-auth-key': agent.authKey },
    body: Buffer.from(JSON.stringify(body)),
  });
  if (end.kind === 'refused') {
    recordUnexpected(agent.ledger, `${kind} of node ${agent.node.nodeId} refused: ${end.reason}`);
  }
  return end;
}
