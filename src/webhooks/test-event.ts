import { postSigned, refusalOf, type WebhookTarget } from './post.ts';

/** What came of a test event. */
export interface TestOutcome {
  /** Whether the webhook answered 2xx. */
  delivered: boolean;
  /** Null if there was no answer. */
  status: number | null;
  tookMs: number;
  /** The first bytes of the answer, as text. */
  answer: string | null;
  /** Why it was not delivered, for an operator. */
  reason: string | null;
}

const answerBytesMax = 300;

/**
 * Posts an event of the kind `test`, signed like every other, and tells what came of it. It is no
 * event of a subscription: it is sent once, is recorded nowhere, and its id is 0.
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
