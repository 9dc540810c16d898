import { setTimeout as delay } from 'node:timers/promises';
import { postsKey } from '../../../src/spool/streams.ts';
import { attempt, createTarget, type OutgoingRequest } from '../simulator/client.ts';
import type { FaultStores } from './oracle.ts';
import type { Servers } from './servers.ts';
import type { FaultLedger } from './traffic.ts';

/** Core keeps the id of a post for one to two seconds in this scenario, so that a round outlasts it. */
export const lateRepeatSettings = { CORE_IDEMPOTENCY_SECONDS: '1' };
const forgottenMsMax = 20_000;
const timeoutMs = 10_000;
const shardsMax = 3;

/**
 * Sends every post of the round again, after Core has forgotten its id, after Redis was killed and has
 * read its append-only file, and to an api with another number of shards. Only the number of a post can
 * tell that it was stored. A post that got no answer before is stored now at the latest.
 */
export async function repeatLate(context: {
  servers: Servers;
  stores: FaultStores;
  ledger: FaultLedger;
  round: number;
}): Promise<string> {
  const { servers, stores, ledger, round } = context;
  const [api, redis] = [servers.processes.get('api'), servers.processes.get('redis')];
  if (api === undefined || redis === undefined) throw new Error('no api and Redis to restart');
  await untilForgotten(stores, servers.config.stores.redisPrefix);
  const shards = 1 + (round % shardsMax);
  servers.environment['CORE_SPOOL_SHARDS'] = String(shards);
  redis.kill(0);
  api.kill(0);
  await redis.up();
  await api.up();
  const target = createTarget(servers.url);
  let stored = 0;
  for (const [post, request] of ledger.requests) {
    const answer = await repeat(target, request);
    if (answer === 200) stored += 1;
    else ledger.unexpected.push(`other: a late repeat of post ${post.n} got ${answer}`);
    if (answer === 200) post.outcome = 'acked';
  }
  target.connections.destroy();
  return `${stored} posts repeated to ${shards} shards after Core had forgotten their ids`;
}

/** Redis expires the sets of ids. Nothing else is posted meanwhile. */
async function untilForgotten({ redis }: FaultStores, prefix: string): Promise<void> {
  const giveUpAtMs = performance.now() + forgottenMsMax;
  for (;;) {
    const sets = await redis.keys(`${postsKey(prefix)}:*`);
    if (sets.length === 0) return;
    if (performance.now() > giveUpAtMs) throw new Error(`Redis still holds ${sets[0]}`);
    await delay(50);
  }
}

/** The status of the first answer that is no 503: right after a restart a store may be away. */
async function repeat(
  target: ReturnType<typeof createTarget>,
  request: OutgoingRequest,
): Promise<number | string> {
  const giveUpAtMs = performance.now() + timeoutMs;
  const { signal } = new AbortController();
  for (;;) {
    const answer = await attempt(target, request, { timeoutMs, cutAfterMs: undefined, signal });
    const isFinal = answer.kind === 'answered' && answer.status !== 503;
    if (isFinal || performance.now() > giveUpAtMs) {
      return answer.kind === 'answered' ? answer.status : answer.reason;
    }
    await delay(100);
  }
}
