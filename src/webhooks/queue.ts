import type { SubscriptionEvent } from '../subscriptions/events.ts';

export const webhookQueueName = 'webhook';
/** Whole time that the webhook has for an answer. */
export const webhookTimeoutMs = 10_000;

/** An event as it lies in the queue: as JSON, so that dates are text. */
export type WebhookJob = Omit<SubscriptionEvent, 'at'> & { at: string };

/** One event is one job, so that handing it over twice changes nothing. */
export function webhookJobId(eventId: number): string {
  return `event-${eventId}`;
}
