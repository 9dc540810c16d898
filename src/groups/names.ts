import { CoreError } from '../errors.ts';
import type { Queryable } from '../stores/postgres.ts';

/** New protocols and subscriptions are in this group if nothing is said. Nobody can rename or remove it. */
export const defaultGroup = 'default';

const namesShownMax = 20;

/**
 * The ids of groups by their names, each once.
 * @throws CoreError INVALID_ARGUMENT naming the groups that do not exist, and those that do.
 */
export async function groupIds(db: Queryable, names: readonly string[]): Promise<number[]> {
  const idsByName = await findGroups(db, names);
  const unknown = [...new Set(names)].filter((name) => !idsByName.has(name));
  if (unknown.length > 0) {
    throw new CoreError('INVALID_ARGUMENT', await unknownGroups(db, unknown));
  }
  return [...idsByName.values()];
}

/** The groups of these names that exist. */
export async function findGroups(
  db: Queryable,
  names: readonly string[],
): Promise<Map<string, number>> {
  const { rows } = await db.query<{ id: number; name: string }>(
    'SELECT id, name FROM groups WHERE name = ANY ($1::text[]) ORDER BY id',
    [names],
  );
  return new Map(rows.map((row) => [row.name, row.id]));
}

/** The names of all groups, sorted. */
export async function listGroupNames(db: Queryable): Promise<string[]> {
  const { rows } = await db.query<{ name: string }>(
    'SELECT name FROM groups ORDER BY name COLLATE "C"',
  );
  return rows.map((row) => row.name);
}

/** The message about groups that do not exist. */
export async function unknownGroups(db: Queryable, unknown: readonly string[]): Promise<string> {
  const { rows } = await db.query<{ name: string }>(
    'SELECT name FROM groups ORDER BY name LIMIT $1',
    [namesShownMax + 1],
  );
  const known = rows.slice(0, namesShownMax).map((row) => row.name);
  const more = rows.length > namesShownMax ? ' and more' : '';
  return `There is no group ${unknown.join(', ')}; there are ${known.join(', ')}${more}`;
}

/**
 * The id of one group.
 * @throws CoreError NOT_FOUND.
 */
export async function groupId(db: Queryable, name: string): Promise<number> {
  const id = (await findGroups(db, [name])).get(name);
  if (id !== undefined) return id;
  throw new CoreError('NOT_FOUND', await unknownGroups(db, [name]));
}
