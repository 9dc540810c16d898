import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { sqlStateOf, sqlStates } from '../stores/sql-states.ts';
import { createInTransaction, type NewMember } from '../subscriptions/create.ts';
import type { ListedLink } from '../subscriptions/links.ts';
import { newToken, tokenHash } from './token.ts';

// Who has a page, and by which token. A token leaves Core once, when it is made.

/** Pages added by one statement. */
const batchRows = 5_000;

/**
 * Gives a subscription a page.
 * @param token that of another panel, which client apps have already; a new one if not given.
 * @returns the token.
 * @throws CoreError NOT_FOUND if there is no such subscription; INVALID_ARGUMENT if it has a page, or if the
 * token is another subscription's.
 */
export async function createPage(
  db: Queryable,
  subscriptionId: number,
  token = newToken(),
): Promise<string> {
  try {
    const { rowCount } = await db.query(
      `INSERT INTO subscription_pages (subscription_id, token_hash) VALUES ($1, $2)
       ON CONFLICT (subscription_id) DO NOTHING`,
      [subscriptionId, tokenHash(token)],
    );
    if (rowCount === 1) return token;
  } catch (cause) {
    const state = sqlStateOf(cause);
    if (state === sqlStates.foreignKeyViolation) {
      const message = `There is no subscription ${subscriptionId}`;
      throw new CoreError('NOT_FOUND', message, { cause });
    }
    if (state !== sqlStates.uniqueViolation) throw cause;
    const message = 'Another subscription has this token: give each one its own';
    throw new CoreError('INVALID_ARGUMENT', message, { cause });
  }
  throw new CoreError(
    'INVALID_ARGUMENT',
    `Subscription ${subscriptionId} has a page already. Core keeps no token; for a new one: core subscription page rotate ${subscriptionId}`,
  );
}

/**
 * Adds a subscription that has a page from the start.
 * @returns the token, too.
 * @throws CoreError as `createSubscription` does.
 */
export function createSubscriptionWithPage(
  pool: pg.Pool,
  subscription: NewMember,
): Promise<{ subscriptionId: number; links: ListedLink[]; pageToken: string }> {
  return inTransaction(pool, async (client) => {
    const created = await createInTransaction(client, subscription);
    return { ...created, pageToken: await createPage(client, created.subscriptionId) };
  });
}

/**
 * Gives a page a new token. The old one stops working.
 * @throws CoreError NOT_FOUND if the subscription has no page.
 */
export async function rotatePage(db: Queryable, subscriptionId: number): Promise<string> {
  const token = newToken();
  const { rowCount } = await db.query(
    'UPDATE subscription_pages SET token_hash = $2, created_at = now() WHERE subscription_id = $1',
    [subscriptionId, tokenHash(token)],
  );
  if (rowCount === 1) return token;
  throw withoutPage(subscriptionId);
}

/** @throws CoreError NOT_FOUND if the subscription has no page. */
export async function removePage(db: Queryable, subscriptionId: number): Promise<void> {
  const { rowCount } = await db.query('DELETE FROM subscription_pages WHERE subscription_id = $1', [
    subscriptionId,
  ]);
  if (rowCount !== 1) throw withoutPage(subscriptionId);
}

/**
 * Since when a subscription has its token.
 * @throws CoreError NOT_FOUND if it has no page.
 */
export async function showPage(
  db: Queryable,
  subscriptionId: number,
): Promise<{ subscriptionId: number; tokenSince: Date }> {
  const { rows } = await db.query<{ tokenSince: Date }>(
    'SELECT created_at AS "tokenSince" FROM subscription_pages WHERE subscription_id = $1',
    [subscriptionId],
  );
  const row = rows[0];
  if (row === undefined) throw withoutPage(subscriptionId);
  return { subscriptionId, ...row };
}

/** A page that was just made. */
interface MadePage {
  subscriptionId: number;
  userId: number;
  token: string;
}

/**
 * Gives a page to every subscription that has none, all or none.
 * @param keep puts the tokens in a safe place. It is called before the commit, since nobody can get them
 * from Core afterwards. If it throws, no page is made.
 */
export async function createMissingPages(
  pool: pg.Pool,
  keep: (made: readonly MadePage[]) => void,
): Promise<number> {
  return inTransaction(pool, async (client) => {
    // Locked, so that no subscription is deleted, and no page made, before the commit.
    const { rows } = await client.query<{ subscriptionId: number; userId: number }>(
      `SELECT s.id AS "subscriptionId", s.user_id AS "userId" FROM subscriptions s
       WHERE NOT EXISTS (SELECT FROM subscription_pages p WHERE p.subscription_id = s.id)
       ORDER BY s.id FOR KEY SHARE`,
    );
    const made = rows.map((row) => ({ ...row, token: newToken() }));
    for (let at = 0; at < made.length; at += batchRows) {
      const batch = made.slice(at, at + batchRows);
      await client.query(
        `INSERT INTO subscription_pages (subscription_id, token_hash)
         SELECT * FROM unnest($1::bigint[], $2::bytea[])`,
        [batch.map((one) => one.subscriptionId), batch.map((one) => tokenHash(one.token))],
      );
    }
    keep(made);
    return made.length;
  });
}

function withoutPage(subscriptionId: number): CoreError {
  return new CoreError(
    'NOT_FOUND',
    `Subscription ${subscriptionId} has no page. To make one: core subscription page create ${subscriptionId}`,
  );
}
