import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';
import type { Queryable } from './postgres.ts';

/** The id of this Core, a UUID. A migration writes it into the database, once. */
export async function readInstance(db: Queryable): Promise<string> {
  const { rows } = await db.query<{ id: string }>('SELECT id FROM instance');
  const id = rows[0]?.id;
  if (id === undefined) throw new CoreError('MIGRATION_FAILED', 'The table instance is empty');
  return id;
}

/** Redis key of the id of the Core that writes under this prefix. */
export function instanceKey(prefix: string): string {
  return `${prefix}:instance`;
}

/**
 * Makes sure that Postgres and Redis belong to the same Core. Rows that wait in Redis name nodes and
 * subscriptions by their ids in one database. In another database the same ids belong to others, and the
 * rows would count for them. An empty Redis takes the id of this Core.
 * @throws CoreError INSTANCE_MISMATCH naming both ids.
 */
export async function requireSameInstance(
  db: Queryable,
  redis: Redis,
  prefix: string,
): Promise<void> {
  const own = await readInstance(db);
  const key = instanceKey(prefix);
  // GET comes first: a Redis that is full refuses a SET, and Core must start on it all the same.
  if ((await redis.get(key)) === null) await redis.set(key, own, 'NX');
  const found = await redis.get(key);
  if (found === own) return;
  throw new CoreError(
    'INSTANCE_MISMATCH',
    `Postgres belongs to the Core ${own}, and Redis under the prefix ${prefix} to the Core ${found}. Check DATABASE_URL, REDIS_URL and CORE_REDIS_PREFIX; docs/durability.md says what to do after a restore`,
  );
}
