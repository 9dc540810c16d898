import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { recordEvents } from './events.ts';
import { lastResetAt, nextResetAt, type ResetPeriod } from './period.ts';
import { deriveStatus } from './status.ts';

/** How many subscriptions one call takes. The rest follow a second later. */
const expiriesMax = 10_000;
const resetsMax = 5_000;

interface Reset {
  resetId: number;
  cause: 'schedule' | 'operator';
  /** The end of the period by the calendar; null if an operator ended it. */
  dueAt: Date | null;
  resetAt: Date;
  usedBytesUp: number;
  usedBytesDown: number;
}

/** A row that this transaction holds, so that nobody can change its counters until it ends. */
interface Held {
  id: number;
  usedUp: string;
  usedDown: string;
  dueAt: Date | null;
  nextResetAt: Date | null;
}

interface HeldRow extends Held {
  resetPeriod: ResetPeriod;
  anchorAt: Date;
  now: Date;
}

const heldColumns = `id, (traffic_bytes_up - period_base_up)::text AS "usedUp",
  (traffic_bytes_down - period_base_down)::text AS "usedDown", reset_period AS "resetPeriod",
  anchor_at AS "anchorAt", next_reset_at AS "nextResetAt", now()`;

/**
 * Marks subscriptions as expired once their time is over, records that, and bumps the nodes that served
 * them, in one transaction. The worker calls it once a second. If another transaction holds a subscription,
 * this leaves it to the next call, so it waits for nobody.
 * @returns the ids of those that expired.
 */
export async function expireDue(pool: pg.Pool): Promise<number[]> {
  return inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ id: number }>(
      `SELECT id FROM subscriptions
       WHERE expires_at <= now() AND status IN ('active', 'limited')
       ORDER BY expires_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED`,
      [expiriesMax],
    );
    const changes = await deriveStatus(
      client,
      rows.map((row) => row.id),
    );
    return changes
      .filter((change) => change.after === 'expired')
      .map((change) => change.subscriptionId);
  });
}

/**
 * Resets subscriptions once their period is over. The worker calls it once a second. If Core was down for
 * several periods, one reset ends the last of them, and the next reset is in the future. So no period is
 * reset twice. Traffic that is settled later counts for the new period, whenever it was recorded. If
 * another transaction holds a subscription (a settle), this leaves it to the next call, so it waits for
 * nobody.
 * @returns the ids of those that were reset.
 */
export async function resetDue(pool: pg.Pool): Promise<number[]> {
  return inTransaction(pool, async (client) => {
    const { rows } = await client.query<HeldRow>(
      `SELECT ${heldColumns} FROM subscriptions WHERE next_reset_at <= now()
       ORDER BY next_reset_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED`,
      [resetsMax],
    );
    const held = rows.map((row): Held => {
      const { id, usedUp, usedDown, resetPeriod, anchorAt, now } = row;
      const dueAt = resetPeriod === 'none' ? null : lastResetAt(resetPeriod, anchorAt, now);
      return {
        id,
        usedUp,
        usedDown,
        dueAt,
        nextResetAt: nextResetAt(resetPeriod, anchorAt, now),
      };
    });
    await startPeriod(client, held, 'schedule');
    return held.map((row) => row.id);
  });
}

/**
 * Starts a new period of a subscription at once. The next reset by the calendar stays as it is.
 * @throws CoreError NOT_FOUND.
 */
export async function resetSubscription(pool: pg.Pool, subscriptionId: number): Promise<void> {
  await inTransaction(pool, async (client) => {
    const { rows } = await client.query<HeldRow>(
      `SELECT ${heldColumns} FROM subscriptions WHERE id = $1 FOR NO KEY UPDATE`,
      [subscriptionId],
    );
    const row = rows[0];
    if (row === undefined) {
      throw new CoreError('NOT_FOUND', `There is no subscription ${subscriptionId}`);
    }
    await startPeriod(client, [{ ...row, dueAt: null }], 'operator');
  });
}

/** This transaction holds the rows, so the history gets exactly what was read from them. */
async function startPeriod(
  client: pg.PoolClient,
  held: readonly Held[],
  cause: Reset['cause'],
): Promise<void> {
  if (held.length === 0) return;
  const ids = held.map((row) => row.id);
  await client.query(
    `UPDATE subscriptions s SET period_base_up = s.traffic_bytes_up,
       period_base_down = s.traffic_bytes_down, next_reset_at = given.next_reset_at
     FROM unnest($1::bigint[], $2::timestamptz[]) AS given (id, next_reset_at)
     WHERE s.id = given.id`,
    [ids, held.map((row) => row.nextResetAt)],
  );
  await client.query(
    `INSERT INTO subscription_resets (subscription_id, cause, due_at, used_up, used_down)
     SELECT id, $2, due_at, used_up, used_down
     FROM unnest($1::bigint[], $3::timestamptz[], $4::bigint[], $5::bigint[])
       AS given (id, due_at, used_up, used_down)`,
    [
      ids,
      cause,
      held.map((row) => row.dueAt),
      held.map((row) => row.usedUp),
      held.map((row) => row.usedDown),
    ],
  );
  await recordEvents(
    client,
    held.map((row) => ({
      subscriptionId: row.id,
      kind: 'reset' as const,
      data: {
        cause,
        dueAt: row.dueAt,
        usedBytesUp: Number(row.usedUp),
        usedBytesDown: Number(row.usedDown),
      },
    })),
  );
  await deriveStatus(client, ids);
}

/** A subscription's resets, newest first. */
export async function listResets(
  db: Queryable,
  page: { subscriptionId: number; rowsMax: number },
): Promise<Reset[]> {
  const { rows } = await db.query<Reset>(
    `SELECT id AS "resetId", cause, due_at AS "dueAt", reset_at AS "resetAt",
       used_up AS "usedBytesUp", used_down AS "usedBytesDown"
     FROM subscription_resets WHERE subscription_id = $1 ORDER BY id DESC LIMIT $2`,
    [page.subscriptionId, page.rowsMax],
  );
  return rows;
}
