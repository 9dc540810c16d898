import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';
import { type Subscription, showSubscription } from '../subscriptions/show.ts';
import type { WebhookJob } from './queue.ts';
import { signature } from './signature.ts';

export interface WebhookTarget {
  url: string;
  secret: string;
  /** Whole time of a request. */
  timeoutMs: number;
}

/**
 * Sends one event to the operator's own URL and resolves once it is answered with 2xx. The
 * subscription in the body is as of this attempt, not as of the event: a receiver that gets events
 * out of order still knows the newest state.
 *
 * Redirects are not followed: a body that was signed for one place does not go to another.
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
  const status = await post(target, event.eventId, body, signal);
  if (status < 200 || status > 299) throw new Error(`The webhook answered ${status}`);
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

async function post(
  target: WebhookTarget,
  eventId: number,
  body: string,
  signal: AbortSignal,
): Promise<number> {
  const timeout = AbortSignal.timeout(target.timeoutMs);
  try {
    const response = await fetch(target.url, {
      method: 'POST',
      redirect: 'manual',
      headers: {
        'content-type': 'application/json',
        'user-agent': 'core-webhook',
        'x-core-event-id': String(eventId),
        'x-core-signature': signature(target.secret, body, Math.floor(Date.now() / 1_000)),
      },
      body,
      signal: AbortSignal.any([timeout, signal]),
    });
    await response.body?.cancel();
    return response.status;
  } catch (cause) {
    if (timeout.aborted) {
      throw new Error(`The webhook gave no answer within ${target.timeoutMs} ms`, { cause });
    }
    throw new Error(`The webhook cannot be reached (${reasonOf(cause)})`, { cause });
  }
}

/** The code alone, since messages of fetch may name the URL. */
function reasonOf(thrown: unknown): string {
  const cause = (thrown as { cause?: { code?: unknown } } | null)?.cause;
  return String(cause?.code ?? (thrown as Error | null)?.name ?? 'unknown');
}
