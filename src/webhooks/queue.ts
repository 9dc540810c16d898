import type { Queue } from 'bullmq';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import type { SubscriptionEvent } from '../subscriptions/events.ts';

// Events on their way: from Postgres, where they wait as `pending`, to the BullMQ queue of the webhook,
// and to the dead letters if the webhook never takes them.

export const webhookQueueName = 'webhook';

/** Attempts of one event: at once, then after 5 s, 10 s, 20 s, …, 85 min; 2.8 hours together. */
const attempts = 12;
const backoffMs = 5_000;
const dispatchRows = 1_000;
const dispatchBatchesMax = 10;
/** While this many wait in Redis, the rest waits in Postgres, so that Redis stays small. */
const waitingMax = 10_000;
/** How many dead letters are kept, newest first. */
const deadMax = 10_000;

/** An event in the queue, as JSON: dates are text. */
export type WebhookJob = Omit<SubscriptionEvent, 'at'> & { at: string };

/** One event is one job, so that handing it over twice changes nothing. */
function webhookJobId(eventId: number): string {
  return `event-${eventId}`;
}

/**
 * Hands pending events over to the webhook's queue, oldest first. The worker calls it once a second.
 * If the worker dies between the two stores, the next call hands the same events over again. Their
 * jobs then have the same ids, so the webhook gets nothing twice.
 * @returns how many were handed over.
 */
export async function dispatchEvents(
  deps: { pool: pg.Pool; queue: Queue<WebhookJob> },
  options: { backoffMs?: number | undefined } = {},
): Promise<number> {
  let dispatched = 0;
  for (let batch = 0; batch < dispatchBatchesMax; batch += 1) {
    const { waiting = 0, delayed = 0 } = await deps.queue.getJobCounts('waiting', 'delayed');
    if (waiting + delayed >= waitingMax) break;
    const count = await dispatchBatch(deps, options.backoffMs ?? backoffMs);
    dispatched += count;
    if (count < dispatchRows) break;
  }
  return dispatched;
}

async function dispatchBatch(
  { pool, queue }: { pool: pg.Pool; queue: Queue<WebhookJob> },
  delay: number,
): Promise<number> {
  return inTransaction(pool, async (client) => {
    const { rows } = await client.query<SubscriptionEvent>(
      `SELECT id AS "eventId", subscription_id AS "subscriptionId", kind, at, data
       FROM subscription_events WHERE pending ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED`,
      [dispatchRows],
    );
    if (rows.length === 0) return 0;
    await queue.addBulk(
      rows.map((event) => ({
        name: event.kind,
        data: { ...event, at: event.at.toISOString() },
        opts: {
          jobId: webhookJobId(event.eventId),
          attempts,
          backoff: { type: 'exponential', delay, jitter: 0.2 },
          // BullMQ keeps finished jobs for a while, to recognise an event that is handed over again.
          removeOnComplete: { age: 3_600, count: 10_000 },
          removeOnFail: { count: deadMax },
        },
      })),
    );
    await client.query(
      'UPDATE subscription_events SET pending = false WHERE id = ANY ($1::bigint[])',
      [rows.map((event) => event.eventId)],
    );
    return rows.length;
  });
}

/**
 * Drops pending events while no webhook is set, so that a webhook that is set later does not get
 * everything that happened before.
 */
export async function dropPendingEvents(db: Queryable): Promise<void> {
  await db.query(
    `UPDATE subscription_events SET pending = false WHERE id IN (
       SELECT id FROM subscription_events WHERE pending
       ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)`,
    [dispatchRows * dispatchBatchesMax],
  );
}

/** An event that the webhook has not taken. */
interface DeadLetter {
  eventId: number;
  subscriptionId: number;
  kind: string;
  at: string;
  attempts: number;
  lastError: string;
  failedAt: Date | null;
}

/** Events that Core has given up, newest first. */
export async function listDeadLetters(
  queue: Queue<WebhookJob>,
  page: { rowsMax: number },
): Promise<DeadLetter[]> {
  const jobs = await queue.getFailed(0, page.rowsMax - 1);
  return jobs.map(({ data, attemptsMade, failedReason, finishedOn }) => ({
    eventId: data.eventId,
    subscriptionId: data.subscriptionId,
    kind: data.kind,
    at: data.at,
    attempts: attemptsMade,
    lastError: failedReason,
    failedAt: finishedOn === undefined ? null : new Date(finishedOn),
  }));
}

/**
 * Puts a dead letter back into the queue, with all of its attempts.
 * @throws CoreError NOT_FOUND if there is no dead letter of this event.
 */
export async function retryDeadLetter(queue: Queue<WebhookJob>, eventId: number): Promise<void> {
  const job = await queue.getJob(webhookJobId(eventId));
  if (job === undefined || !(await job.isFailed())) {
    throw new CoreError('NOT_FOUND', `There is no dead letter of event ${eventId}`);
  }
  await job.retry('failed', { resetAttemptsMade: true });
}

const retryBatchJobs = 500;
/** Enough for all that the queue keeps. The bound ends the loop if jobs fail again meanwhile. */
const retryBatchesMax = 40;

/** Puts every dead letter back into the queue. @returns how many. */
export async function retryDeadLetters(queue: Queue<WebhookJob>): Promise<number> {
  let retried = 0;
  for (let batch = 0; batch < retryBatchesMax; batch += 1) {
    const jobs = await queue.getFailed(0, retryBatchJobs - 1);
    for (const job of jobs) await job.retry('failed', { resetAttemptsMade: true });
    retried += jobs.length;
    if (jobs.length < retryBatchJobs) break;
  }
  return retried;
}
