import type { Queue } from 'bullmq';
import { CoreError } from '../errors.ts';
import { type WebhookJob, webhookJobId } from './queue.ts';

/** An event that the webhook has not taken. */
export interface DeadLetter {
  eventId: number;
  subscriptionId: number;
  kind: string;
  at: string;
  attempts: number;
  lastError: string;
  failedAt: Date | null;
}

/** Events that were given up, newest first. */
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
 * Has a dead letter sent again, with all of its attempts.
 * @throws CoreError NOT_FOUND where this event was not given up.
 */
export async function retryDeadLetter(queue: Queue<WebhookJob>, eventId: number): Promise<void> {
  const job = await queue.getJob(webhookJobId(eventId));
  if (job === undefined || !(await job.isFailed())) {
    throw new CoreError('NOT_FOUND', `There is no dead letter of event ${eventId}`);
  }
  await job.retry('failed', { resetAttemptsMade: true });
}

const batchJobs = 500;
/** More than the queue keeps, so that what fails again meanwhile cannot keep this going. */
const batchesMax = 40;

/** Has every dead letter sent again. @returns how many. */
export async function retryDeadLetters(queue: Queue<WebhookJob>): Promise<number> {
  let retried = 0;
  for (let batch = 0; batch < batchesMax; batch += 1) {
    const jobs = await queue.getFailed(0, batchJobs - 1);
    for (const job of jobs) await job.retry('failed', { resetAttemptsMade: true });
    retried += jobs.length;
    if (jobs.length < batchJobs) break;
  }
  return retried;
}
