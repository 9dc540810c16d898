import type pg from 'pg';
import { groupId } from '../groups/names.ts';
import { type Link, type LinkRow, linkOf, linksSql, requireSubscription } from './links.ts';
import { showUser } from './users.ts';

/** Whose links: those of one subscription, of a user's, of those in a group, or of all. */
export type LinksOf = { subscriptionId: number } | { userId: number } | { group: string } | 'all';

/** Links that are in memory at a time. */
const rowsMax = 1_000;

/**
 * Links by subscription and protocol, in parts. A cursor makes them while they are read, so neither Postgres
 * nor this process holds the rest: a fleet may have a billion. All are of one moment. That moment's rows stay
 * in Postgres until the last part is read.
 * @throws CoreError NOT_FOUND if there is no such subscription, user or group.
 */
export async function* streamLinks(pool: pg.Pool, of: LinksOf): AsyncGenerator<Link[]> {
  const client = await pool.connect();
  let isAtEnd = false;
  try {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY');
    const { condition, values } = await conditionOf(client, of);
    await client.query(
      `DECLARE links NO SCROLL CURSOR FOR ${linksSql(condition)}`,
      values as unknown[],
    );
    while (!isAtEnd) {
      const { rows } = await client.query<LinkRow>(`FETCH ${rowsMax} FROM links`);
      if (rows.length > 0) yield rows.map(linkOf);
      isAtEnd = rows.length < rowsMax;
    }
    await client.query('COMMIT');
  } finally {
    // If the reader stopped early, the transaction is open. It ends with its connection.
    client.release(!isAtEnd);
  }
}

async function conditionOf(
  client: pg.PoolClient,
  of: LinksOf,
): Promise<{ condition: string; values: readonly unknown[] }> {
  if (of === 'all') return { condition: 'true', values: [] };
  if ('subscriptionId' in of) {
    await requireSubscription(client, of.subscriptionId);
    return { condition: 's.id = $1', values: [of.subscriptionId] };
  }
  if ('userId' in of) {
    await showUser(client, of.userId);
    return { condition: 's.user_id = $1', values: [of.userId] };
  }
  return {
    condition: `EXISTS (SELECT FROM subscription_groups m
      WHERE m.subscription_id = s.id AND m.group_id = $1)`,
    values: [await groupId(client, of.group)],
  };
}
