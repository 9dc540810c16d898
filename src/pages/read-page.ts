import type { Connection } from '../client-apps/connection.ts';
import type { LeftOut } from '../client-apps/profile.ts';
import type { Queryable } from '../stores/postgres.ts';
import { readLinks } from '../subscriptions/links.ts';
import type { SubscriptionStatus } from '../subscriptions/status.ts';
import { connectionsOfLinks } from './connections.ts';

/** What a page says of its subscription. Bytes are those of the current period. */
export interface PageSubscription {
  subscriptionId: number;
  status: SubscriptionStatus;
  bytesUp: number;
  bytesDown: number;
  /** Null without a limit. */
  limitBytes: number | null;
  /** Null if it does not expire. */
  expiresAt: Date | null;
}

export interface PageContent {
  subscription: PageSubscription;
  /** Empty if the subscription is not active. */
  connections: readonly Connection[];
  leftOut: readonly LeftOut[];
}

/** Client apps list no more. The other links are counted as left out. */
const linksMax = 5_000;

/**
 * What a page shows now; undefined if no subscription has this token.
 * @param hash SHA-256 of the token.
 */
export async function readPage(db: Queryable, hash: Uint8Array): Promise<PageContent | undefined> {
  const { rows } = await db.query<PageSubscription>(
    `SELECT s.id AS "subscriptionId", s.status,
       (s.traffic_bytes_up - s.period_base_up) AS "bytesUp",
       (s.traffic_bytes_down - s.period_base_down) AS "bytesDown",
       s.traffic_limit_bytes AS "limitBytes", s.expires_at AS "expiresAt"
     FROM subscription_pages p JOIN subscriptions s ON s.id = p.subscription_id
     WHERE p.token_hash = $1`,
    [hash],
  );
  const subscription = rows[0];
  if (subscription === undefined) return undefined;
  if (subscription.status !== 'active') return { subscription, connections: [], leftOut: [] };
  const links = await readLinks(db, subscription);
  const { connections, leftOut } = connectionsOfLinks(links.slice(0, linksMax));
  const rest = links.slice(linksMax).map(({ nodeName, protocol }) => ({
    name: `${nodeName} ${protocol}`,
    why: `a page has at most ${linksMax} links`,
  }));
  return { subscription, connections, leftOut: [...leftOut, ...rest] };
}
