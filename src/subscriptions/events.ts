import type pg from 'pg';
import type { Queryable } from '../stores/postgres.ts';

/** What can happen to a subscription. docs/webhooks.md lists them with their data. */
const eventKinds = [
  'created',
  'started',
  'limited',
  'expired',
  'disabled',
  'enabled',
  'activated',
  'reset',
  'warning_80',
  'warning_95',
  'limit_changed',
  'expiry_changed',
  'period_changed',
  'groups_changed',
  'credential_changed',
  'links_rotated',
  'deleted',
] as const;
export type EventKind = (typeof eventKinds)[number];

/** Something that happened to a subscription. The subscription may no longer exist. */
export interface SubscriptionEvent {
  eventId: number;
  subscriptionId: number;
  kind: EventKind;
  at: Date;
  data: Record<string, unknown>;
}

/** Records events, in the transaction of the changes that they report. */
export async function recordEvents(
  client: pg.PoolClient,
  events: readonly { subscriptionId: number; kind: EventKind; data: Record<string, unknown> }[],
): Promise<void> {
  if (events.length === 0) return;
  await client.query(
    `INSERT INTO subscription_events (subscription_id, kind, data)
     SELECT * FROM unnest($1::bigint[], $2::text[], $3::json[])`,
    [
      events.map((event) => event.subscriptionId),
      events.map((event) => event.kind),
      events.map((event) => JSON.stringify(event.data)),
    ],
  );
}

/** One page of events, by id, of one subscription or of all. */
export async function listEvents(
  db: Queryable,
  page: { subscriptionId?: number | undefined; afterId: number; rowsMax: number },
): Promise<SubscriptionEvent[]> {
  const { rows } = await db.query<SubscriptionEvent>(
    `SELECT id AS "eventId", subscription_id AS "subscriptionId", kind, at, data
     FROM subscription_events
     WHERE id > $1 AND ($3::bigint IS NULL OR subscription_id = $3) ORDER BY id LIMIT $2`,
    [page.afterId, page.rowsMax, page.subscriptionId ?? null],
  );
  return rows;
}

const pruneRowsMax = 10_000;
const pruneRoundsMax = 1_000;

/**
 * Deletes events that are older than this, unless they wait to be handed to a webhook.
 * @returns how many.
 */
export async function pruneEvents(db: Queryable, options: { days: number }): Promise<number> {
  let pruned = 0;
  for (let round = 0; round < pruneRoundsMax; round += 1) {
    const { rowCount } = await db.query(
      `DELETE FROM subscription_events WHERE id IN (
         SELECT id FROM subscription_events
         WHERE at < now() - make_interval(days => $1) AND NOT pending
         ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)`,
      [options.days, pruneRowsMax],
    );
    pruned += rowCount ?? 0;
    if ((rowCount ?? 0) < pruneRowsMax) break;
  }
  return pruned;
}
