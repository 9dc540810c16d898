import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { bullPrefix } from '../load/worker.ts';
import type { SubscriptionEvent } from '../subscriptions/events.ts';

export const webhookQueueName = 'webhook';

/** An event as it lies in the queue: as JSON, so that dates are text. */
export type WebhookJob = Omit<SubscriptionEvent, 'at'> & { at: string };

/** One event is one job, so that handing it over twice changes nothing. */
export function webhookJobId(eventId: number): string {
  return `event-${eventId}`;
}

export interface WebhookQueue {
  queue: Queue<WebhookJob>;
  close(): Promise<void>;
}

/** Opens the queue on a connection of its own that fails at once while Redis is away. */
export async function openWebhookQueue(options: {
  redisUrl: string;
  prefix: string;
  onError?: (error: Error) => void;
}): Promise<WebhookQueue> {
  const connection = new Redis(options.redisUrl, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    lazyConnect: true,
  });
  // Commands reject by themselves; without a listener the event would end the process.
  connection.on('error', (error: Error) => options.onError?.(error));
  try {
    await connection.connect();
  } catch (thrown) {
    connection.disconnect();
    throw thrown;
  }
  const queue = new Queue<WebhookJob>(webhookQueueName, {
    connection,
    prefix: bullPrefix(options.prefix),
  });
  queue.on('error', (error) => options.onError?.(error));
  return {
    queue,
    async close() {
      await queue.close();
      connection.disconnect();
    },
  };
}
