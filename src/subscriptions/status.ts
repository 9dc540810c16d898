import type pg from 'pg';
import { bumpNodes } from '../nodes/bump.ts';
import { linkedNodes } from '../nodes/linked.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { type EventKind, recordEvents } from './events.ts';

export type SubscriptionStatus = 'active' | 'limited' | 'expired' | 'disabled';

/** Bytes that the row `s` used in its period. Numeric, since two counters may add up past a bigint. */
export const usedSql =
  '(s.traffic_bytes_up::numeric + s.traffic_bytes_down - s.period_base_up - s.period_base_down)';

/**
 * The one place that says which status a subscription has: an SQL expression made of SQL expressions.
 * An operator's decision comes first, then the expiry, then the limit.
 */
export function statusSql(of: {
  disabled: string;
  expiresAt: string;
  used: string;
  limit: string;
}): string {
  return `CASE WHEN ${of.disabled} THEN 'disabled'
    WHEN ${of.expiresAt} <= now() THEN 'expired'
    WHEN ${of.used} >= ${of.limit} THEN 'limited'
    ELSE 'active' END`;
}

const currentStatusSql = statusSql({
  disabled: 's.disabled',
  expiresAt: 's.expires_at',
  used: usedSql,
  limit: 's.traffic_limit_bytes',
});

/** The highest threshold that is reached, as an SQL expression; 0 without a limit. */
export function warnedSql(of: { used: string; limit: string }): string {
  return `CASE
    WHEN ${of.used} * 100 >= ${of.limit}::numeric * 95 THEN 95
    WHEN ${of.used} * 100 >= ${of.limit}::numeric * 80 THEN 80
    ELSE 0 END`;
}

const currentWarnedSql = warnedSql({ used: usedSql, limit: 's.traffic_limit_bytes' });

/**
 * Whether traffic took the row `s` over its limit, or over a threshold that has not warned yet. A settle
 * evaluates it for every row: one without a limit costs one comparison.
 */
export const crossedSql = `(s.traffic_limit_bytes IS NOT NULL AND ${usedSql} * 100
    >= s.traffic_limit_bytes::numeric * CASE s.warned_percent WHEN 0 THEN 80 WHEN 80 THEN 95 ELSE 100 END
    AND (s.warned_percent < 95 OR s.status = 'active'))`;

/** A change of a subscription's status. */
interface StatusChange {
  subscriptionId: number;
  before: SubscriptionStatus;
  after: SubscriptionStatus;
}

/**
 * Derives the status and the warnings of these subscriptions again. It records an event for every
 * change and every threshold reached, and bumps the nodes of those that gained or lost access. Call it
 * in the transaction that made the change. That transaction must hold the rows, so that this waits for
 * nobody.
 *
 * If used traffic fell under a threshold (a reset, a raised limit), the threshold warns again.
 * @returns the changes of status.
 */
export async function deriveStatus(
  client: pg.PoolClient,
  subscriptionIds: readonly number[],
): Promise<StatusChange[]> {
  if (subscriptionIds.length === 0) return [];
  const { rows } = await client.query<StatusChange>(
    `WITH derived AS MATERIALIZED (
       SELECT s.id, s.status AS before, ${currentStatusSql} AS after, s.warned_percent AS warned,
         ${currentWarnedSql} AS reached, ${usedSql} AS used, s.traffic_limit_bytes AS "limit"
       FROM subscriptions s WHERE s.id = ANY ($1::bigint[])
     ), warnings AS (
       INSERT INTO subscription_events (subscription_id, kind, data)
       SELECT id, 'warning_' || threshold, json_build_object('usedBytes', used, 'limitBytes', "limit")
       FROM derived JOIN unnest('{80,95}'::integer[]) AS threshold
         ON threshold > warned AND threshold <= reached
       ORDER BY id, threshold
     ), changed AS (
       UPDATE subscriptions SET status = after, warned_percent = reached FROM derived
       WHERE subscriptions.id = derived.id AND (before <> after OR warned <> reached)
     )
     SELECT id AS "subscriptionId", before, after FROM derived WHERE before <> after ORDER BY id`,
    [subscriptionIds],
  );
  await recordEvents(
    client,
    rows.map((change) => ({
      subscriptionId: change.subscriptionId,
      kind: eventOf(change),
      data: { from: change.before, to: change.after },
    })),
  );
  const served = rows.filter((row) => (row.before === 'active') !== (row.after === 'active'));
  await bumpLinkedNodes(
    client,
    served.map((row) => row.subscriptionId),
    causeOf(served),
  );
  return rows;
}

/**
 * One cause for all changes, without ids if there are several. One call can then bump all nodes in the
 * order of their ids, and a node keeps few distinct causes.
 */
function causeOf(changes: readonly StatusChange[]): string {
  const statuses = [...new Set(changes.map((change) => change.after))];
  const [first] = changes;
  if (changes.length === 1 && first !== undefined) {
    return `subscription ${first.subscriptionId} became ${first.after}`;
  }
  return `subscriptions became ${statuses.toSorted().join(' or ')}`;
}

/** Access after an operator's decision is `enabled`; access after anything else is `activated`. */
function eventOf({ before, after }: StatusChange): EventKind {
  if (before === 'disabled') return 'enabled';
  return after === 'active' ? 'activated' : after;
}

/**
 * Bumps every node to which one of these subscriptions has a link. It waits until nobody changes protocols or
 * groups, and nobody can then until the transaction ends.
 */
export async function bumpLinkedNodes(
  client: pg.PoolClient,
  subscriptionIds: readonly number[],
  cause: string,
): Promise<void> {
  if (subscriptionIds.length === 0) return;
  await lockLinks(client, 'subscriptions');
  await bumpNodes(client, await linkedNodes(client, subscriptionIds), cause);
}
