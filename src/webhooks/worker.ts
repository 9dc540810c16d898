import { type Job, Worker } from 'bullmq';
import type pg from 'pg';
import type { Logger } from '../log.ts';
import { bullPrefix, connectConsumer, openQueue } from '../stores/bullmq.ts';
import { noteFailure, noteSuccess } from './health.ts';
import type { WebhookTarget } from './post.ts';
import { dispatchEvents, type WebhookJob, webhookQueueName } from './queue.ts';
import { sendEvent } from './send.ts';

const sendsAtOnce = 8;
/** Longer than a send takes, so that two workers never send the same event at once. */
const lockDurationMs = 30_000;

interface Webhook {
  /** Hands new events over to the queue. */
  dispatch(): Promise<void>;
  /** Aborts sends under way (they are sent again later) and closes the connections. */
  close(): Promise<void>;
}

/**
 * Sends events to the webhook, several at once. A failed event is repeated with growing pauses. An
 * event that fails every time stays in the queue as a dead letter; see `core webhook`.
 */
export async function startWebhook(options: {
  pool: pg.Pool;
  redisUrl: string;
  prefix: string;
  target: WebhookTarget;
  log: Logger;
  /** First pause between two attempts; for tests. */
  backoffMs?: number;
}): Promise<Webhook> {
  const { pool, log, target } = options;
  const onError = (err: Error): void => log.debug({ err }, 'webhook queue');
  const { redisUrl, prefix } = options;
  const queueOptions = { redisUrl, prefix, onError };
  const { queue, redis, close } = await openQueue<WebhookJob>(webhookQueueName, queueOptions);
  const consumer = connectConsumer(redisUrl, onError);
  const stopping = new AbortController();
  const worker = new Worker<WebhookJob>(
    webhookQueueName,
    (job: Job<WebhookJob>) => sendEvent(pool, target, job.data, stopping.signal),
    {
      connection: consumer,
      prefix: bullPrefix(prefix),
      concurrency: sendsAtOnce,
      lockDuration: lockDurationMs,
      maxStalledCount: 1_000,
      runRetryDelay: 1_000,
    },
  );
  worker.on('error', onError);
  // Unknown at first: an earlier worker may have recorded that the webhook fails.
  let isFailing: boolean | undefined;
  worker.on('failed', (job, err) => {
    const isDead = job !== undefined && job.attemptsMade >= (job.opts.attempts ?? 1);
    const fields = { eventId: job?.data.eventId, reason: err.message };
    if (isDead) log.error(fields, 'webhook event given up: see core webhook list');
    else if (isFailing === true) log.debug(fields, 'webhook failed; the event will be repeated');
    else log.warn(fields, 'webhook fails; events are repeated until it takes them');
    isFailing = true;
    noteFailure(redis, prefix).catch(onError);
  });
  worker.on('completed', () => {
    if (isFailing === false) return;
    if (isFailing === true) log.info('webhook takes events again');
    isFailing = false;
    noteSuccess(redis, prefix).catch(onError);
  });
  return {
    async dispatch() {
      await dispatchEvents({ pool, queue }, { backoffMs: options.backoffMs });
    },
    async close() {
      stopping.abort();
      await worker.close();
      await close();
      consumer.disconnect();
    },
  };
}
