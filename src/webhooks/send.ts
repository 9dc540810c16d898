import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';
import { type Subscription, showSubscription } from '../subscriptions/show.ts';
import { postSigned, refusalOf, type WebhookTarget } from './post.ts';
import type { WebhookJob } from './queue.ts';

/**
 * Sends one event to the operator's own URL and resolves once the answer is a 2xx. The body holds the
 * subscription as it is at this attempt, not at the event. So a receiver that gets events out of order
 * still learns the newest state.
 * @throws Error with a message for operators: it holds no URL and no secret.
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

/** Null if the subscription was deleted. */
async function currentState(db: Queryable, subscriptionId: number): Promise<Subscription | null> {
  try {
    return await showSubscription(db, subscriptionId);
  } catch (thrown) {
    if (thrown instanceof CoreError && thrown.code === 'NOT_FOUND') return null;
    throw thrown;
  }
}

/** The result of a test event. */
export interface TestOutcome {
  /** Whether the webhook answered 2xx. */
  delivered: boolean;
  /** Null if there was no answer. */
  status: number | null;
  tookMs: number;
  /** The first bytes of the answer, as text. */
  answer: string | null;
  /** Why the event was not delivered, for an operator. */
  reason: string | null;
}

const answerBytesMax = 300;

/**
 * Posts an event of the kind `test`, signed like every other, and returns the result. The event
 * belongs to no subscription, is sent once and is recorded nowhere. Its id is 0.
 */
export async function sendTestEvent(target: WebhookTarget): Promise<TestOutcome> {
  const body = JSON.stringify({
    eventId: 0,
    subscriptionId: null,
    kind: 'test',
    at: new Date().toISOString(),
    data: {},
    subscription: null,
  });
  const startedAtMs = performance.now();
  const took = (): number => Math.round(performance.now() - startedAtMs);
  try {
    const event = { eventId: 0, body, answerBytesMax };
    const { status, body: answer } = await postSigned(target, event, new AbortController().signal);
    const reason = refusalOf(status) ?? null;
    const text = answer.toString('utf8');
    return { delivered: reason === null, status, tookMs: took(), answer: text, reason };
  } catch (thrown) {
    const reason = (thrown as Error).message;
    return { delivered: false, status: null, tookMs: took(), answer: null, reason };
  }
}
