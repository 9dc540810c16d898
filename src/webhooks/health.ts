import type { Redis } from 'ioredis';
import { bullPrefix } from '../stores/bullmq.ts';
import { webhookQueueName } from './queue.ts';

/** The state of the webhook, over all workers. */
export interface WebhookHealth {
  /** Attempts that ever failed. */
  failuresEver: number;
  /** Time since the first failed attempt after the last successful one; 0 if there is none. */
  failingSeconds: number;
  /** Events that Core has given up; see core webhook list. */
  deadLetters: number;
  /** Events in the queue, including those that wait for their next attempt. */
  waiting: number;
}

interface Keys {
  failures: string;
  failingSince: string;
}

function healthKeys(prefix: string): Keys {
  return {
    failures: `${prefix}:webhook:failures`,
    failingSince: `${prefix}:webhook:failing-since`,
  };
}

export async function noteFailure(redis: Redis, prefix: string): Promise<void> {
  const keys = healthKeys(prefix);
  await redis
    .multi()
    .incr(keys.failures)
    .set(keys.failingSince, Math.floor(Date.now() / 1_000), 'NX')
    .exec();
}

/** A worker without a webhook calls it, too: a webhook that is not set cannot fail. */
export async function noteSuccess(redis: Redis, prefix: string): Promise<void> {
  await redis.del(healthKeys(prefix).failingSince);
}

export async function readWebhookHealth(redis: Redis, prefix: string): Promise<WebhookHealth> {
  const keys = healthKeys(prefix);
  const queue = `${bullPrefix(prefix)}:${webhookQueueName}`;
  const [failures, since, deadLetters, ready, delayed, active] = await Promise.all([
    redis.get(keys.failures),
    redis.get(keys.failingSince),
    redis.zcard(`${queue}:failed`),
    redis.llen(`${queue}:wait`),
    redis.zcard(`${queue}:delayed`),
    redis.llen(`${queue}:active`),
  ]);
  const nowSeconds = Math.floor(Date.now() / 1_000);
  return {
    failuresEver: Number(failures ?? 0),
    failingSeconds: since === null ? 0 : Math.max(0, nowSeconds - Number(since)),
    deadLetters,
    waiting: ready + delayed + active,
  };
}
