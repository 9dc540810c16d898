import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { setSubscriptionGroups } from '../groups/membership.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { linkedNodes } from '../nodes/linked.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { inTransaction } from '../stores/postgres.ts';
import { credentialColumns, lockCredentials, requireOwnCredential } from './credentials.ts';
import { type EventKind, recordEvents } from './events.ts';
import { nextResetAt, type ResetPeriod } from './period.ts';
import { type Subscription, showSubscription } from './show.ts';
import { bumpLinkedNodes, deriveStatus } from './status.ts';

/** What an operator may change. Fields that are left out stay as they are. */
export interface SubscriptionChange {
  /** Null: no limit. */
  trafficLimitBytes?: number | null | undefined;
  /** Null: never. Given without a duration, it ends the duration. */
  expiresAt?: Date | null | undefined;
  /** Runs from the next traffic; given without an expiry, it drops the expiry. */
  durationSeconds?: number | undefined;
  resetPeriod?: ResetPeriod | undefined;
  anchorAt?: Date | undefined;
  disabled?: boolean | undefined;
  /** Names of all its groups. */
  groups?: readonly string[] | undefined;
  /** Of all its links. Null: each link has a derived one. */
  credential?: string | null | undefined;
}

interface Settings {
  trafficLimitBytes: number | null;
  expiresAt: Date | null;
  durationSeconds: number | null;
  resetPeriod: ResetPeriod;
  anchorAt: Date;
  disabled: boolean;
  nextResetAt: Date | null;
  now: Date;
}

/**
 * Changes a subscription and derives its status again. A raised limit or a later expiry gives access back.
 * A lower limit or an earlier expiry takes it. Disabling takes it until the subscription is enabled again.
 * Setting a field to the value that it has records no event.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for a group that does not exist, or a credential that somebody
 * else has.
 */
export async function changeSubscription(
  pool: pg.Pool,
  subscriptionId: number,
  change: SubscriptionChange,
): Promise<Subscription> {
  const { groups, credential, ...settings } = change;
  return inTransaction(pool, async (client) => {
    if (credential !== undefined) await lockCredentials(client);
    const before = await lockSettings(client, subscriptionId);
    if (groups !== undefined) await lockLinks(client, 'groups');
    const after: Settings = { ...before, ...withoutUndefined(settings) };
    if (change.durationSeconds !== undefined) after.expiresAt = null;
    else if (change.expiresAt !== undefined) after.durationSeconds = null;
    const isNewPeriod =
      after.resetPeriod !== before.resetPeriod || isOther(after.anchorAt, before.anchorAt);
    if (isNewPeriod) {
      after.nextResetAt = nextResetAt(after.resetPeriod, after.anchorAt, after.now);
    }
    await client.query(
      `UPDATE subscriptions SET traffic_limit_bytes = $2, expires_at = $3, reset_period = $4,
         anchor_at = $5, next_reset_at = $6, disabled = $7, duration_seconds = $8 WHERE id = $1`,
      [
        subscriptionId,
        after.trafficLimitBytes,
        after.expiresAt,
        after.resetPeriod,
        after.anchorAt,
        after.nextResetAt,
        after.disabled,
        after.durationSeconds,
      ],
    );
    await recordEvents(
      client,
      changeEvents(before, after, isNewPeriod).map((event) => ({ subscriptionId, ...event })),
    );
    await deriveStatus(client, [subscriptionId]);
    // Only MTProto configurations hold the expiry of each user. The bytes of all others stay the same,
    // so those nodes keep their revision.
    if (isOther(before.expiresAt, after.expiresAt)) {
      await bumpLinkedNodes(
        client,
        [subscriptionId],
        `expiry of subscription ${subscriptionId} changed`,
      );
    }
    if (groups !== undefined) await changeGroups(client, subscriptionId, groups);
    if (credential !== undefined) await changeCredential(client, subscriptionId, credential);
    return showSubscription(client, subscriptionId);
  });
}

/** Bumps the nodes that serve it before or after. */
async function changeGroups(
  client: pg.PoolClient,
  subscriptionId: number,
  groups: readonly string[],
): Promise<void> {
  const { groups: from } = await showSubscription(client, subscriptionId);
  const before = await linkedNodes(client, [subscriptionId]);
  if (!(await setSubscriptionGroups(client, subscriptionId, groups))) return;
  const after = await linkedNodes(client, [subscriptionId]);
  const { groups: to } = await showSubscription(client, subscriptionId);
  await recordEvents(client, [{ subscriptionId, kind: 'groups_changed', data: { from, to } }]);
  const cause = `groups of subscription ${subscriptionId} changed`;
  await bumpNodes(client, [...new Set([...before, ...after])], cause);
}

/** Links with a credential of their own keep it. The event does not hold it, because events leave Core. */
async function changeCredential(
  client: pg.PoolClient,
  subscriptionId: number,
  credential: string | null,
): Promise<void> {
  if (credential !== null) await requireOwnCredential(client, { subscriptionId, credential });
  const { rowCount } = await client.query(
    `UPDATE subscriptions SET credential = $2, credential_uuid = $3
     WHERE id = $1 AND credential IS DISTINCT FROM $2`,
    [subscriptionId, ...credentialColumns([credential]).map((column) => column[0])],
  );
  if (rowCount === 0) return;
  const data = { isGiven: credential !== null };
  await recordEvents(client, [{ subscriptionId, kind: 'credential_changed', data }]);
  const cause = `credential of subscription ${subscriptionId} changed`;
  await bumpLinkedNodes(client, [subscriptionId], cause);
}

/**
 * Locks the row until the transaction ends, so that a settle or a reset comes before or after this change.
 */
async function lockSettings(client: pg.PoolClient, subscriptionId: number): Promise<Settings> {
  const { rows } = await client.query<Settings>(
    `SELECT traffic_limit_bytes AS "trafficLimitBytes", expires_at AS "expiresAt",
       duration_seconds AS "durationSeconds", reset_period AS "resetPeriod",
       anchor_at AS "anchorAt", disabled,
       next_reset_at AS "nextResetAt", now()
     FROM subscriptions WHERE id = $1 FOR NO KEY UPDATE`,
    [subscriptionId],
  );
  const row = rows[0];
  if (row !== undefined) return row;
  throw new CoreError('NOT_FOUND', `There is no subscription ${subscriptionId}`);
}

function changeEvents(
  before: Settings,
  after: Settings,
  isNewPeriod: boolean,
): { kind: EventKind; data: Record<string, unknown> }[] {
  const events: { kind: EventKind; data: Record<string, unknown> }[] = [];
  if (before.trafficLimitBytes !== after.trafficLimitBytes) {
    const data = { from: before.trafficLimitBytes, to: after.trafficLimitBytes };
    events.push({ kind: 'limit_changed', data });
  }
  const isNewExpiry = isOther(before.expiresAt, after.expiresAt);
  if (isNewExpiry || before.durationSeconds !== after.durationSeconds) {
    const { expiresAt: to, durationSeconds } = after;
    events.push({ kind: 'expiry_changed', data: { from: before.expiresAt, to, durationSeconds } });
  }
  if (isNewPeriod) {
    const { resetPeriod, anchorAt } = after;
    const data = { from: before.resetPeriod, to: resetPeriod, anchorAt };
    events.push({ kind: 'period_changed', data });
  }
  return events;
}

function isOther(one: Date | null, other: Date | null): boolean {
  return one?.getTime() !== other?.getTime();
}

function withoutUndefined(
  change: Omit<SubscriptionChange, 'groups' | 'credential'>,
): Partial<Settings> {
  return Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined));
}
