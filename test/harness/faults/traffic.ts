import { setMaxListeners } from 'node:events';
import { createHistogram } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { type Attempt, createTarget, type OutgoingRequest } from '../simulator/client.ts';
import {
  type DeliverContext,
  type Delivery,
  deliver,
  type Patience,
} from '../simulator/deliver.ts';
import { createLedger, type IngestKind } from '../simulator/ledger.ts';
import { createRandom, integerIn, nodeSeed, type Random } from '../simulator/random.ts';
import { buildPost, type Outcome, type Post } from './posts.ts';
import type { FaultNode, FaultWorld } from './world.ts';

/** What the harness sent and how Core answered, over all rounds. */
export interface FaultLedger {
  posts: Post[];
  /** The requests of the last round. */
  requests: Map<Post, OutgoingRequest>;
  /** Answers that no valid post should get, one line each. */
  unexpected: string[];
  attempts: number;
  retries: number;
  /** Answers by status; 0 counts attempts without an answer. */
  answers: Map<number, number>;
}

/** The posts of each loop of a node in a round, in order. */
const loops: readonly IngestKind[][] = [
  ['usage', 'usage', 'usage', 'usage'],
  ['outbound', 'session', 'outbound', 'session'],
];
const gapMsMax = 300;
/** The same in a round with posts until its scenario ends. */
const lastingGapMsMax = 2_000;
/** Share of posts that are sent twice at the same time. */
const twinShare = 0.08;
/** Share of posts with a first attempt that is cut right after sending. */
const cutShare = 0.06;
const cutAfterMsMax = 12;
/** Share of posts with a sender that dies soon after sending and never learns the answer. */
const abandonShare = 0.06;
const abandonAfterMsMax = 40;
/** Share of usage and session posts without a number that have an idempotency key, which they do not need. */
const extraKeyShare = 0.3;
const patience: Patience = { backOffBaseMs: 50, backOffMsMax: 400, retryAfterMsMax: 100 };
const timeoutMs = 5_000;

export function createFaultLedger(): FaultLedger {
  return {
    posts: [],
    requests: new Map(),
    unexpected: [],
    attempts: 0,
    retries: 0,
    answers: new Map(),
  };
}

/**
 * Sends one round's posts of every node. Each post is repeated, as an agent does, until it is answered
 * or until the round's deadline. Returns the posts with their outcomes.
 */
export async function sendTraffic(options: {
  seed: number;
  round: number;
  url: string;
  world: FaultWorld;
  ledger: FaultLedger;
  deadlineMs: number;
  /** Whether some usage posts have rows that ClickHouse refuses. */
  poison: boolean;
  /** Share of posts with a number. */
  numberedShare: number;
  /**
   * If given, every loop begins anew, and more slowly, until this aborts. Then every answer has to be
   * a 200 or a 503 with Retry-After.
   */
  until: AbortSignal | undefined;
}): Promise<Post[]> {
  const { seed, round, world, ledger, url, poison, numberedShare } = options;
  ledger.requests.clear();
  const end = new AbortController();
  setMaxListeners(0, end.signal);
  const timer = setTimeout(() => end.abort(), options.deadlineMs);
  const firstPost = ledger.posts.length;
  const target = createTarget(url);
  const tally = createLedger();
  await Promise.all(
    world.nodes.flatMap((node, index) =>
      loops.map(async (kinds, loop) => {
        const loopSeed = nodeSeed(seed, round * 1_000 + index * 10 + loop);
        const random = createRandom(loopSeed);
        const context: DeliverContext = {
          target,
          // A source of its own, so that the number of attempts does not change what the loop sends next.
          random: createRandom(nodeSeed(loopSeed, 1)),
          patience,
          timeoutMs,
          ledger: tally,
          latencyUs: createHistogram(),
          end: end.signal,
          ...(options.until === undefined ? {} : { onAnswer: judgeAnswer(ledger) }),
        };
        const gapMs = options.until === undefined ? gapMsMax : lastingGapMsMax;
        const done = (): boolean => options.until?.aborted !== false || end.signal.aborted;
        const turns = function* () {
          do yield* kinds;
          while (!done());
        };
        for (const kind of turns()) {
          await delay(random() * gapMs);
          const given = { round, node, world, ledger, context, random, poison, numberedShare };
          await sendPost(kind, given);
        }
      }),
    ),
  );
  clearTimeout(timer);
  target.connections.destroy();
  ledger.attempts += tally.tally.attempts;
  ledger.retries += tally.tally.retries;
  for (const [status, count] of [
    ...tally.tally.answersByStatus,
    [0, tally.tally.unanswered] as const,
  ]) {
    ledger.answers.set(status, (ledger.answers.get(status) ?? 0) + count);
  }
  return ledger.posts.slice(firstPost);
}

/** While a store is away, Core may answer 200, or 503 with Retry-After. The oracle checks each 200. */
function judgeAnswer(ledger: FaultLedger): (answer: Attempt) => void {
  return (answer) => {
    if (answer.kind !== 'answered' || answer.status === 200) return;
    const retryAfter = String(answer.headers['retry-after'] ?? '');
    if (answer.status === 503 && /^[1-9]\d*$/.test(retryAfter)) return;
    ledger.unexpected.push(
      `other: an answer was ${answer.status} with Retry-After ${retryAfter || 'none'}`,
    );
  };
}

async function sendPost(
  kind: IngestKind,
  given: {
    round: number;
    node: FaultNode;
    world: FaultWorld;
    ledger: FaultLedger;
    context: DeliverContext;
    random: Random;
    poison: boolean;
    numberedShare: number;
  },
): Promise<void> {
  const { node, ledger, context, random } = given;
  const n = ledger.posts.length + 1;
  const { post, path, body } = buildPost(kind, { ...given, n });
  ledger.posts.push(post);
  const request = {
    method: 'POST',
    path,
    headers: {
      'content-type': 'application/json',
      'x-node-auth-key': node.authKey,
      ...identityOf(kind, n, given),
    },
    body,
  } as const;
  ledger.requests.set(post, request);
  const twin = random() < twinShare;
  const cutFirstAfterMs = random() < cutShare ? random() * cutAfterMsMax : undefined;
  const abandonAfterMs =
    random() < abandonShare ? integerIn(random, 1, abandonAfterMsMax) : undefined;
  const end =
    abandonAfterMs === undefined
      ? context.end
      : AbortSignal.any([context.end, AbortSignal.timeout(abandonAfterMs)]);
  const send = (): Promise<Delivery> =>
    deliver({ ...context, end }, kind, request, { cutFirstAfterMs });
  const deliveries = await Promise.all(twin ? [send(), send()] : [send()]);
  post.outcome = outcomeOf(deliveries);
  for (const delivery of deliveries) {
    if (delivery.kind !== 'refused') continue;
    ledger.unexpected.push(`post ${n} (${kind}) was refused: ${delivery.reason}`);
  }
}

/** The headers by which Core recognises a post, beside its body. */
function identityOf(
  kind: IngestKind,
  n: number,
  given: { node: FaultNode; random: Random; numberedShare: number },
): Record<string, string> {
  const { node, random, numberedShare } = given;
  if (random() < numberedShare) {
    node.greatest += 1;
    return { 'x-node-stream': node.stream, 'x-node-sequence': String(node.greatest) };
  }
  const withKey = kind === 'outbound' || random() < extraKeyShare;
  return withKey ? { 'idempotency-key': `post-${n}` } : {};
}

function outcomeOf(deliveries: readonly Delivery[]): Outcome {
  if (deliveries.some((one) => one.kind === 'done')) return 'acked';
  const isUnknown = (one: Delivery): boolean =>
    one.kind === 'unknown' || (one.kind === 'refused' && one.mayBeStored);
  return deliveries.some(isUnknown) ? 'unknown' : 'undelivered';
}
