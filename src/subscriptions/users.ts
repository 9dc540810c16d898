import assert from 'node:assert/strict';
import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';

export interface User {
  userId: number;
  name: string;
  createdAt: Date;
}

/** Adds a user. Two users may have the same name, since ids tell them apart. */
export async function createUser(db: Queryable, user: { name: string }): Promise<number> {
  const { rows } = await db.query<{ id: number }>(
    'INSERT INTO users (name) VALUES ($1) RETURNING id',
    [user.name],
  );
  const userId = rows[0]?.id;
  assert(userId !== undefined, 'RETURNING gives the new row');
  return userId;
}

/** One page of users, by id. */
export async function listUsers(
  db: Queryable,
  page: { afterId: number; rowsMax: number },
): Promise<User[]> {
  const { rows } = await db.query<User>(
    `SELECT id AS "userId", name, created_at AS "createdAt"
     FROM users WHERE id > $1 ORDER BY id LIMIT $2`,
    [page.afterId, page.rowsMax],
  );
  return rows;
}

/**
 * One user.
 * @throws CoreError NOT_FOUND.
 */
export async function showUser(
  db: Queryable,
  userId: number,
): Promise<User & { subscriptions: number }> {
  const { rows } = await db.query<User & { subscriptions: number }>(
    `SELECT id AS "userId", name, created_at AS "createdAt",
       (SELECT count(*) FROM subscriptions WHERE user_id = users.id) AS subscriptions
     FROM users WHERE id = $1`,
    [userId],
  );
  const row = rows[0];
  if (row === undefined) throw new CoreError('NOT_FOUND', `There is no user ${userId}`);
  return row;
}

/** @throws CoreError NOT_FOUND. */
export async function renameUser(
  db: Queryable,
  user: { userId: number; name: string },
): Promise<void> {
  const { rowCount } = await db.query('UPDATE users SET name = $2 WHERE id = $1', [
    user.userId,
    user.name,
  ]);
  if (rowCount === 0) throw new CoreError('NOT_FOUND', `There is no user ${user.userId}`);
}
