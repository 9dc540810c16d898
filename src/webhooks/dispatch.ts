import type { Queue } from 'bullmq';
import type pg from 'pg';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import type { SubscriptionEvent } from '../subscriptions/events.ts';
import { type WebhookJob, webhookJobId } from './queue.ts';

/** Attempts of one event: at once, then after 5 s, 10 s, 20 s, …, 85 min; 2.8 hours together. */
const attempts = 12;
const backoffMs = 5_000;
const batchRows = 1_000;
const batchesMax = 10;
/** While this many wait in Redis the rest waits in Postgres, so that Redis stays small. */
const waitingMax = 10_000;
/** How many of those that failed for good are kept, newest first. */
const deadMax = 10_000;

/**
 * Hands events that nobody has handed over yet to the webhook's queue, oldest first. The worker
 * calls it once a second. Where this dies between the two stores, the next call hands the same
 * events over again: their jobs have the same ids, so nothing is sent twice for that.
 * @returns how many were handed over.
 */
export async function dispatchEvents(
  deps: { pool: pg.Pool; queue: Queue<WebhookJob> },
  options: { backoffMs?: number | undefined } = {},
): Promise<number> {
  let dispatched = 0;
  for (let batch = 0; batch < batchesMax; batch += 1) {
    const { waiting = 0, delayed = 0 } = await deps.queue.getJobCounts('waiting', 'delayed');
    if (waiting + delayed >= waitingMax) break;
    const count = await dispatchBatch(deps, options.backoffMs ?? backoffMs);
    dispatched += count;
    if (count < batchRows) break;
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
      [batchRows],
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
          // Kept for a while, so that an event that is handed over again is known.
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
 * Where no webhook is set: events are let go, so that one that is set later does not get everything
 * that happened before.
 */
export async function passEvents(db: Queryable): Promise<void> {
  await db.query(
    `UPDATE subscription_events SET pending = false WHERE id IN (
       SELECT id FROM subscription_events WHERE pending
       ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)`,
    [batchRows * batchesMax],
  );
}
