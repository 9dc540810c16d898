import { randomUUID } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { type Agent, send } from './agent.ts';
import { type Built, buildOutbound, buildSession, buildUsage } from './bodies.ts';
import type { OutgoingRequest } from './client.ts';
import { pullAndApply } from './config-sync.ts';
import { type Delivery, deliver, pause } from './deliver.ts';
import { type IngestKind, recordAcked, recordUnexpected, recordUnknown } from './ledger.ts';
import { jittered } from './random.ts';

const gzipShare = 0.3;
/** Share of usage and session posts with an `Idempotency-Key`, which they do not need. */
const extraKeyShare = 0.2;
const cutAfterMsMax = 15;
/** Share of posts that are followed by one that Core has to refuse. */
const probeShare = 0.01;

const paths: Record<IngestKind, string> = {
  usage: '/node/usage',
  outbound: '/node/outbound-usage',
  session: '/node/session-events',
};

/** Runs the agent's loops until `stop`, and then until every post is answered or until `end`. */
export async function runAgent(agent: Agent): Promise<void> {
  const { options, node } = agent;
  const reports = node.members.length > 0;
  await Promise.all([
    every(agent, options.heartbeatEveryMs, () => heartbeat(agent)),
    reports ? every(agent, options.usageEveryMs, () => postUsage(agent)) : undefined,
    every(agent, options.outboundEveryMs, () => postOutbound(agent)),
    reports ? every(agent, options.sessionEveryMs, () => postSession(agent)) : undefined,
  ]);
  agent.delivery.target.connections.destroy();
}

/**
 * Runs the work again only after it has ended, so an agent that cannot deliver holds one post of each kind.
 */
async function every(agent: Agent, ms: number, work: () => Promise<void>): Promise<void> {
  let waitMs = agent.random() * ms;
  while (await pause(waitMs, agent.stop.signal)) {
    await work();
    waitMs = jittered(agent.random, ms);
  }
}

async function heartbeat(agent: Agent): Promise<void> {
  const { random, config } = agent;
  // An agent that was just restarted knows no revision.
  const revision = config.applied !== undefined && random() > 0.01 ? config.applied : undefined;
  const ip = random() < 0.5 ? { ip: agent.node.ip } : {};
  const answer = await send(agent, 'heartbeat', '/node/heartbeat', {
    ...ip,
    ...(revision === undefined ? {} : { revision }),
  });
  if (answer.kind !== 'done') return;
  const { needSync } = JSON.parse(answer.body.toString('utf8')) as { needSync?: unknown };
  if (typeof needSync !== 'boolean') recordUnexpected(agent.ledger, 'heartbeat: no needSync');
  if (revision === undefined && needSync === false) {
    recordUnexpected(
      agent.ledger,
      `heartbeat: node ${agent.node.nodeId} without revision, no sync`,
    );
  }
  if (needSync === true || random() < 0.05) await pullAndApply(agent, needSync === true);
}

async function postUsage(agent: Agent): Promise<void> {
  const built = buildUsage(agent.node, agent.random, {
    atMs: agent.nextMs(),
    entries: agent.options.entries,
    entriesMax: agent.entriesMax,
  });
  const withKey = agent.random() < extraKeyShare;
  await post(agent, 'usage', built, nextIdentity(agent, withKey));
  if (agent.random() < probeShare) await probeInvalid(agent, built);
}

async function postOutbound(agent: Agent): Promise<void> {
  const identity = nextIdentity(agent, true);
  const acked = await post(agent, 'outbound', buildOutbound(agent.node, agent.random), identity);
  if (acked && agent.random() < probeShare) await probeReuse(agent, identity);
}

async function postSession(agent: Agent): Promise<void> {
  const { node, random, online } = agent;
  const built = buildSession(node, random, { atMs: agent.nextMs(), online });
  await post(agent, 'session', built, nextIdentity(agent, random() < extraKeyShare));
}

/** The headers by which Core recognises a new post, beside its body. */
function nextIdentity({ numbers }: Agent, withKey: boolean): Record<string, string> {
  if (numbers !== undefined) {
    numbers.greatest += 1;
    return { 'x-node-stream': numbers.stream, 'x-node-sequence': String(numbers.greatest) };
  }
  return withKey ? { 'idempotency-key': randomUUID() } : {};
}

/** Delivers one post, sometimes twice or cut off, and records how it ended. True if it was acked. */
async function post(
  agent: Agent,
  kind: IngestKind,
  built: Built,
  identity: Record<string, string>,
): Promise<boolean> {
  const { random, options, ledger, delivery } = agent;
  const request = requestOf(agent, paths[kind], built.body, identity);
  const isCut = random() < options.cuts;
  const isTwice = random() < options.duplicates;
  const cutFirstAfterMs = isCut ? random() * cutAfterMsMax : undefined;
  let ends: Delivery[];
  if (isTwice && random() < 0.5) {
    ends = await Promise.all([
      deliver(delivery, kind, request, { cutFirstAfterMs }),
      deliver(delivery, kind, request),
    ]);
  } else {
    ends = [await deliver(delivery, kind, request, { cutFirstAfterMs })];
    if (isTwice) ends.push(await deliver(delivery, kind, request));
  }
  if (isTwice) ledger.tally.duplicates += 1;
  return record(agent, kind, built, ends);
}

/** Records a post: acked if any delivery was, otherwise unknown if any delivery may be stored. */
function record(agent: Agent, kind: IngestKind, built: Built, ends: readonly Delivery[]): boolean {
  const { ledger, node } = agent;
  for (const end of ends) {
    if (end.kind === 'refused') {
      recordUnexpected(ledger, `${kind} of node ${node.nodeId} refused: ${end.reason}`);
    }
  }
  const { rows, cells } = built;
  if (ends.some((end) => end.kind === 'done')) {
    recordAcked(ledger, { kind, nodeId: node.nodeId, rows, cells });
    return true;
  }
  if (ends.some((end) => end.kind === 'unknown' || (end.kind === 'refused' && end.mayBeStored))) {
    recordUnknown(ledger, { kind, nodeId: node.nodeId, cells });
  } else if (ends.every((end) => end.kind === 'undelivered')) {
    ledger.tally.undelivered += 1;
  }
  return false;
}

/** Sends good entries with one bad entry among them. Core must refuse the post and store nothing. */
async function probeInvalid(agent: Agent, built: Built): Promise<void> {
  const entries = built.body['entries'] as Record<string, unknown>[];
  const at = Math.floor(agent.random() * entries.length);
  const broken = entries.map((entry, index) => (index === at ? { ...entry, bytesUp: -1 } : entry));
  await probe(agent, requestOf(agent, paths.usage, { entries: broken }, {}), 400);
}

/** Sends a used key or number with another body. Core must refuse it and add nothing to the counters. */
async function probeReuse(agent: Agent, identity: Record<string, string>): Promise<void> {
  const other = buildOutbound(agent.node, agent.random);
  await probe(agent, requestOf(agent, paths.outbound, other.body, identity), 422);
}

async function probe(agent: Agent, request: OutgoingRequest, status: number): Promise<void> {
  agent.ledger.tally.probes += 1;
  const end = await deliver(agent.delivery, 'probe', request);
  if (end.kind === 'unknown' || end.kind === 'undelivered') return;
  if (end.status === status) return;
  const { path } = request;
  recordUnexpected(agent.ledger, `${path} answered ${end.status} instead of ${status}`);
}

function requestOf(
  agent: Agent,
  path: string,
  body: Record<string, unknown>,
  identity: Record<string, string>,
): OutgoingRequest {
  const plain = Buffer.from(JSON.stringify(body));
  const isGzip = agent.random() < gzipShare;
  return {
    method: 'POST',
    path,
    headers: {
      'content-type': 'application/json',
      'x-node-auth-key': agent.authKey,
      ...(isGzip ? { 'content-encoding': 'gzip' } : {}),
      ...identity,
    },
    body: isGzip ? gzipSync(plain, { level: 1 }) : plain,
  };
}
