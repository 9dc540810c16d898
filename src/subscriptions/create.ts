import assert from 'node:assert/strict';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { defaultGroup, groupIds } from '../groups/names.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { inTransaction } from '../stores/postgres.ts';
import { credentialColumns, lockCredentials, requireOwnCredential } from './credentials.ts';
import { type ListedLink, listLinks } from './links.ts';
import { nextResetAt, type ResetPeriod } from './period.ts';
import { bumpLinkedNodes, type SubscriptionStatus, statusSql, warnedSql } from './status.ts';

export interface NewSubscription {
  userId: number;
  trafficLimitBytes: number | null;
  expiresAt: Date | null;
  /** How long it lasts from its first traffic; goes with `expiresAt` null only. */
  durationSeconds?: number | undefined;
  /** What the period has used before Core counted. Default: 0. */
  usedBytes?: number | undefined;
  /** What another system calls it; no two subscriptions have the same. */
  externalId?: string | undefined;
  /** Default: none. */
  resetPeriod?: ResetPeriod | undefined;
  /** Default: now. */
  anchorAt?: Date | null | undefined;
  disabled?: boolean | undefined;
  /** Of all its links. Absent or null: each link has a derived one. */
  credential?: string | null | undefined;
}

/** A subscription to add. Groups are names; the default group if they are absent. */
export type NewMember = NewSubscription & { groups?: readonly string[] | undefined };

/**
 * Adds a subscription. It has a link to every protocol that is in one of its groups. If it is active (neither
 * disabled nor expired), the nodes of these protocols are bumped.
 * @throws CoreError NOT_FOUND if there is no such user; INVALID_ARGUMENT for a group that does not exist, or a
 * credential that somebody else has.
 */
export function createSubscription(pool: pg.Pool, subscription: NewMember): Promise<Created> {
  return inTransaction(pool, (client) => createInTransaction(client, subscription));
}

interface Created {
  subscriptionId: number;
  links: ListedLink[];
}

/** The same in a transaction of the caller, which has locked nothing yet. */
export async function createInTransaction(
  client: pg.PoolClient,
  subscription: NewMember,
): Promise<Created> {
  const { userId, groups, credential, ...rest } = subscription;
  const users = await client.query('SELECT FROM users WHERE id = $1 FOR KEY SHARE', [userId]);
  if (users.rowCount === 0) throw new CoreError('NOT_FOUND', `There is no user ${userId}`);
  if (typeof credential === 'string') {
    await lockCredentials(client);
    await requireOwnCredential(client, { credential });
  }
  // The new rows refer to groups, so nobody may remove those meanwhile.
  await lockLinks(client, 'subscriptions');
  const ids = await groupIds(client, groups ?? [defaultGroup]);
  const [made] = await addSubscriptions(client, [{ ...rest, userId, credential, groupIds: ids }]);
  assert(made !== undefined, 'RETURNING gives the new row');
  const { subscriptionId, status } = made;
  assert(Number.isSafeInteger(subscriptionId), 'ids fit a JSON number');
  if (status === 'active') {
    await bumpLinkedNodes(client, [subscriptionId], `subscription ${subscriptionId} created`);
  }
  return { subscriptionId, links: await listLinks(client, subscriptionId) };
}

const statusOfNewSql = statusSql({
  disabled: 'given.disabled',
  expiresAt: 'given.expires_at',
  used: 'given.used_bytes',
  limit: 'given.traffic_limit_bytes',
});

/** A threshold that was passed before Core counted warns no more. */
const warnedOfNewSql = warnedSql({
  used: 'given.used_bytes::numeric',
  limit: 'given.traffic_limit_bytes',
});

/**
 * Adds subscriptions with their groups, and records that they were created. The users and the groups must exist,
 * and the caller has made sure that nobody else has one of the credentials.
 *
 * The counters equal the sums of the rows, so what was used before is the base of the period, below zero.
 * @returns one item per subscription, in the order given.
 */
export async function addSubscriptions(
  client: pg.PoolClient,
  subscriptions: readonly (NewSubscription & { groupIds: readonly number[] })[],
): Promise<{ subscriptionId: number; status: SubscriptionStatus }[]> {
  const clock = await client.query<{ now: Date }>('SELECT now()');
  const now = clock.rows[0]?.now;
  assert(now !== undefined, 'Postgres knows the time');
  const anchors = subscriptions.map((given) => given.anchorAt ?? now);
  const { rows } = await client.query<{ subscriptionId: number; status: SubscriptionStatus }>(
    `WITH given AS MATERIALIZED (
       SELECT nextval(pg_get_serial_sequence('subscriptions', 'id')) AS id, *
       FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::text[],
         $5::timestamptz[], $6::timestamptz[], $7::boolean[], $8::text[], $9::uuid[],
         $10::bigint[], $11::bigint[], $12::text[]) WITH ORDINALITY
         AS given (user_id, traffic_limit_bytes, expires_at, reset_period, anchor_at,
           next_reset_at, disabled, credential, credential_uuid, duration_seconds, used_bytes,
           external_id, at)
     ), made AS (
       INSERT INTO subscriptions (id, user_id, traffic_limit_bytes, expires_at, reset_period,
         anchor_at, next_reset_at, disabled, credential, credential_uuid, status, duration_seconds,
         period_base_down, warned_percent, external_id) OVERRIDING SYSTEM VALUE
       SELECT id, user_id, traffic_limit_bytes, expires_at, reset_period, anchor_at, next_reset_at,
         disabled, credential, credential_uuid, ${statusOfNewSql}, duration_seconds, -used_bytes,
         ${warnedOfNewSql}, external_id
       FROM given
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
      ...credentialColumns(subscriptions.map((given) => given.credential)),
      subscriptions.map((given) => given.durationSeconds ?? null),
      subscriptions.map((given) => given.usedBytes ?? 0),
      subscriptions.map((given) => given.externalId ?? null),
    ],
  );
  const members = rows.flatMap(({ subscriptionId }, at) =>
    (subscriptions[at]?.groupIds ?? []).map((groupId) => ({ subscriptionId, groupId })),
  );
  await client.query(
    `INSERT INTO subscription_groups (group_id, subscription_id)
     SELECT * FROM unnest($1::integer[], $2::bigint[])`,
    [members.map((one) => one.groupId), members.map((one) => one.subscriptionId)],
  );
  return rows;
}
