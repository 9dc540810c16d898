import type { RecordableHistogram } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { type Attempt, attempt, cutReason, type OutgoingRequest, type Target } from './client.ts';
import { countUp, type Ledger, type RequestKind } from './ledger.ts';
import type { Random } from './random.ts';

/** How the delivery of one request ended, after all of its attempts. */
export type Delivery =
  /** 2xx or 304. */
  | { kind: 'done'; status: number; headers: Record<string, unknown>; body: Buffer }
  /** A 4xx that a repeat cannot change. `mayBeStored`: an earlier attempt ended without an answer. */
  | { kind: 'refused'; status: number; reason: string; mayBeStored: boolean }
  /** The run ended first, and at least one attempt may have been stored. */
  | { kind: 'unknown' }
  /** The run ended first, and every attempt was turned away before anything was stored. */
  | { kind: 'undelivered' };

export interface DeliverContext {
  target: Target;
  ledger: Ledger;
  random: Random;
  latencyUs: RecordableHistogram;
  timeoutMs: number;
  /** Aborted at the drain's deadline. Nothing is sent after it. */
  end: AbortSignal;
  /** Waits between attempts. The fault suite has shorter ones than a node, for its short rounds. */
  patience?: Patience;
  /** Called at the end of every attempt. */
  onAnswer?: (answer: Attempt) => void;
}

/** Bounds of the waits between two attempts. */
export interface Patience {
  backOffBaseMs: number;
  backOffMsMax: number;
  retryAfterMsMax: number;
}

/** A longer Retry-After counts as `retryAfterMsMax`, so that one wrong answer does not stop a node. */
const nodePatience: Patience = {
  backOffBaseMs: 200,
  backOffMsMax: 10_000,
  retryAfterMsMax: 60_000,
};

/** Refusals with these codes promise that nothing was stored. Other 5xx do not. */
const storedNothing = new Set([
  ...['BACKLOG_FULL', 'LATE_BACKLOG_FULL', 'SHUTTING_DOWN', 'RATE_LIMITED'],
]);

/**
 * Sends the same bytes until they get a final answer or the run ends. It repeats on 429, 5xx, network
 * errors and time-outs, with exponential back-off and full jitter, and never before Retry-After.
 */
export async function deliver(
  context: DeliverContext,
  kind: RequestKind,
  request: OutgoingRequest,
  options: { cutFirstAfterMs?: number | undefined } = {},
): Promise<Delivery> {
  const { ledger, end } = context;
  countUp(ledger.tally.requestsByKind, kind);
  let mayBeStored = false;
  for (let tries = 0; !end.aborted; tries += 1) {
    if (tries > 0) ledger.tally.retries += 1;
    const answer = await measured(
      context,
      request,
      tries === 0 ? options.cutFirstAfterMs : undefined,
    );
    if (answer.kind === 'answered') {
      if (answer.status < 400) {
        return { kind: 'done', status: answer.status, headers: answer.headers, body: answer.body };
      }
      const { code, text } = readError(answer.body);
      if (answer.status < 500 && answer.status !== 429) {
        const reason = `${answer.status} ${text}`;
        return { kind: 'refused', status: answer.status, reason, mayBeStored };
      }
      if (!storedNothing.has(code)) mayBeStored = true;
    } else if (answer.sent) {
      mayBeStored = true;
    }
    await pause(backOffMs(context.random, tries, answer, context.patience), end);
  }
  return { kind: mayBeStored ? 'unknown' : 'undelivered' };
}

async function measured(
  context: DeliverContext,
  request: OutgoingRequest,
  cutAfterMs: number | undefined,
): Promise<Attempt> {
  const { tally } = context.ledger;
  const startedMs = performance.now();
  const answer = await attempt(context.target, request, {
    timeoutMs: context.timeoutMs,
    cutAfterMs,
    signal: context.end,
  });
  tally.attempts += 1;
  context.onAnswer?.(answer);
  if (answer.kind === 'answered') {
    countUp(tally.answersByStatus, answer.status);
    context.latencyUs.record(Math.max(1, Math.round((performance.now() - startedMs) * 1_000)));
  } else {
    tally.unanswered += 1;
    if (answer.reason === cutReason) tally.cuts += 1;
  }
  return answer;
}

/** How long to wait after attempt number `tries` (from 0). */
function backOffMs(
  random: Random,
  tries: number,
  answer: Attempt,
  patience: Patience = nodePatience,
): number {
  const { backOffBaseMs, backOffMsMax, retryAfterMsMax } = patience;
  const ceilingMs = Math.min(backOffMsMax, backOffBaseMs * 2 ** Math.min(tries, 16));
  const jitterMs = random() * ceilingMs;
  if (answer.kind !== 'answered') return jitterMs;
  const retryAfterSeconds = Number(answer.headers['retry-after'] ?? 0);
  const retryAfterMs = Number.isFinite(retryAfterSeconds) ? retryAfterSeconds * 1_000 : 0;
  return Math.min(retryAfterMs, retryAfterMsMax) + jitterMs;
}

/** Waits. False if `signal` ended the wait early. */
export async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await delay(ms, undefined, { signal });
    return true;
  } catch {
    // The timer fails only by the signal.
    return false;
  }
}

function readError(body: Buffer): { code: string; text: string } {
  const text = body.toString('utf8').slice(0, 400);
  try {
    const parsed = JSON.parse(body.toString('utf8')) as { error?: { code?: unknown } };
    return { code: String(parsed.error?.code ?? ''), text };
  } catch {
    return { code: '', text };
  }
}
