import assert from 'node:assert/strict';
import type pg from 'pg';
import { nextResetAt, type ResetPeriod } from './period.ts';
import { type SubscriptionStatus, statusSql } from './status.ts';

export interface NewSubscription {
  userId: number;
  trafficLimitBytes: number | null;
  expiresAt: Date | null;
  /** Default: none. */
  resetPeriod?: ResetPeriod | undefined;
  /** Default: now. */
  anchorAt?: Date | null | undefined;
  disabled?: boolean | undefined;
}

const statusOfNewSql = statusSql({
  disabled: 'given.disabled',
  expiresAt: 'given.expires_at',
  used: '0',
  limit: 'given.traffic_limit_bytes',
});

/**
 * Inserts subscriptions and records that they were created. The users must exist, and the caller
 * adds the links.
 * @returns one a subscription, in the order given.
 */
export async function insertSubscriptions(
  client: pg.PoolClient,
  subscriptions: readonly NewSubscription[],
): Promise<{ subscriptionId: number; status: SubscriptionStatus }[]> {
  const clock = await client.query<{ now: Date }>('SELECT now()');
  const now = clock.rows[0]?.now;
  assert(now !== undefined, 'Postgres knows the time');
  const anchors = subscriptions.map((given) => given.anchorAt ?? now);
  const { rows } = await client.query<{ subscriptionId: number; status: SubscriptionStatus }>(
    `WITH given AS MATERIALIZED (
       SELECT nextval(pg_get_serial_sequence('subscriptions', 'id')) AS id, *
       FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::text[],
         $5::timestamptz[], $6::timestamptz[], $7::boolean[]) WITH ORDINALITY
         AS given (user_id, traffic_limit_bytes, expires_at, reset_period, anchor_at,
           next_reset_at, disabled, at)
     ), made AS (
       INSERT INTO subscriptions (id, user_id, traffic_limit_bytes, expires_at, reset_period,
         anchor_at, next_reset_at, disabled, status) OVERRIDING SYSTEM VALUE
       SELECT id, user_id, traffic_limit_bytes, expires_at, reset_period, anchor_at, next_reset_at,
         disabled, ${statusOfNewSql} FROM given
       RETURNING id, user_id, status
     ), events AS (
       INSERT INTO subscription_events (subscription_id, kind, data)
       SELECT id, 'created', json_build_object('userId', user_id, 'status', status) FROM made
     )
     SELECT id AS "subscriptionId", status FROM made JOIN given USING (id) ORDER BY at`,
    [
      subscriptions.map((given) => given.userId),
      subscriptions.map((given) => given.trafficLimitBytes),
      subscriptions.map((given) => given.expiresAt),
      subscriptions.map((given) => given.resetPeriod ?? 'none'),
      anchors,
      subscriptions.map((given, index) =>
        nextResetAt(given.resetPeriod ?? 'none', anchors[index] ?? now, now),
      ),
      subscriptions.map((given) => given.disabled ?? false),
    ],
  );
  return rows;
}
