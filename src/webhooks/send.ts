import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';
import { type Subscription, showSubscription } from '../subscriptions/show.ts';
import { postSigned, refusalOf, type WebhookTarget } from './post.ts';
import type { WebhookJob } from './queue.ts';

/**
 * Sends one event to the operator's own URL and resolves once it is answered with 2xx. The
 * subscription in the body is as of this attempt, not as of the event: a receiver that gets events
 * out of order still knows the newest state.
 * @throws Error whose message an operator may read: no URL and no secret is in it.
 */
export async function sendEvent(
  db: Queryable,
  target: WebhookTarget,
  event: WebhookJob,
  signal: AbortSignal,
): Promise<void> {
  const subscription = await currentState(db, event.subscriptionId);
  const body = JSON.stringify({ ...event, subscription });
  const request = { eventId: event.eventId, body, answerBytesMax: 0 };
  const { status } = await postSigned(target, request, signal);
  const refusal = refusalOf(status);
  if (refusal !== undefined) throw new Error(refusal);
}

/** Null where it was deleted. */
async function currentState(db: Queryable, subscriptionId: number): Promise<Subscription | null> {
  try {
    return await showSubscription(db, subscriptionId);
  } catch (thrown) {
    if (thrown instanceof CoreError && thrown.code === 'NOT_FOUND') return null;
    throw thrown;
  }
}
