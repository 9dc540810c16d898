import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { countLinks } from '../nodes/linked.ts';
import { lockImports } from '../nodes/lock-imports.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import type { Queryable } from '../stores/postgres.ts';
import { sqlStateOf, sqlStates } from '../stores/sql-states.ts';
import { inDryTransaction } from './dry-transaction.ts';
import { recordGroupEvents } from './group-events.ts';
import { defaultGroup, groupId, unknownGroups } from './names.ts';

// Groups say who gets what: a protocol is in groups, a subscription has groups, and a link exists where they
// meet.

/** A group and how much is in it. */
interface Group {
  name: string;
  subscriptions: number;
  protocols: number;
  /** Nodes that serve one of the protocols. */
  nodes: number;
  createdAt: Date;
}

/** @throws CoreError INVALID_ARGUMENT if there is a group of this name. */
export async function createGroup(db: Queryable, name: string): Promise<void> {
  const { rowCount } = await db.query(
    'INSERT INTO groups (name) VALUES ($1) ON CONFLICT DO NOTHING',
    [name],
  );
  if (rowCount === 0) throw new CoreError('INVALID_ARGUMENT', `There is a group ${name} already`);
}

/**
 * Gives a group another name. Its links stay.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for the default group, or if the new name is taken.
 */
export async function renameGroup(db: Queryable, name: string, newName: string): Promise<void> {
  requireNotDefault(name, 'renamed');
  try {
    const given = [name, newName];
    const { rowCount } = await db.query('UPDATE groups SET name = $2 WHERE name = $1', given);
    if (rowCount === 1) return;
  } catch (cause) {
    if (sqlStateOf(cause) !== sqlStates.uniqueViolation) throw cause;
    const message = `There is a group ${newName} already`;
    throw new CoreError('INVALID_ARGUMENT', message, { cause });
  }
  throw new CoreError('NOT_FOUND', await unknownGroups(db, [name]));
}

/** All groups by name. */
export async function listGroups(db: Queryable): Promise<Group[]> {
  const { rows } = await db.query<Group>(`${groupQuery} ORDER BY g.name`);
  return rows;
}

/**
 * One group.
 * @throws CoreError NOT_FOUND.
 */
export async function showGroup(db: Queryable, name: string): Promise<Group> {
  const id = await groupId(db, name);
  const { rows } = await db.query<Group>(`${groupQuery} WHERE g.id = $1`, [id]);
  const row = rows[0];
  if (row !== undefined) return row;
  throw new CoreError('NOT_FOUND', `There is no group ${name}`);
}

const groupQuery = `
SELECT g.name, coalesce(s.subscriptions, 0) AS subscriptions, coalesce(p.protocols, 0) AS protocols,
  coalesce(p.nodes, 0) AS nodes, g.created_at AS "createdAt"
FROM groups g
LEFT JOIN (SELECT group_id, count(*)::integer AS subscriptions FROM subscription_groups GROUP BY group_id) s
  ON s.group_id = g.id
LEFT JOIN (
  SELECT pg.group_id, count(*)::integer AS protocols, count(DISTINCT np.node_id)::integer AS nodes
  FROM protocol_groups pg JOIN node_protocols np ON np.id = pg.node_protocol_id GROUP BY pg.group_id) p
  ON p.group_id = g.id`;

/** What ends with a group. */
interface RemovedGroup {
  subscriptions: number;
  protocols: number;
  /** Links that no other group makes. */
  linksEnded: number;
}

/**
 * Removes a group, and its members from it. With `dryRun` it only says what would end.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for the default group.
 */
export async function removeGroup(
  pool: pg.Pool,
  name: string,
  options: { dryRun: boolean },
): Promise<RemovedGroup> {
  requireNotDefault(name, 'removed');
  return inDryTransaction(pool, options.dryRun, async (client) => {
    await lockImports(client, 'removing');
    await lockLinks(client, 'groups');
    const id = await groupId(client, name);
    const before = await countLinks(client);
    const nodes = await client.query<{ id: number }>(
      `SELECT DISTINCT p.node_id AS id FROM protocol_groups pg
       JOIN node_protocols p ON p.id = pg.node_protocol_id WHERE pg.group_id = $1`,
      [id],
    );
    const protocols = await client.query('DELETE FROM protocol_groups WHERE group_id = $1', [id]);
    const members = await client.query<{ id: number }>(
      'DELETE FROM subscription_groups WHERE group_id = $1 RETURNING subscription_id AS id',
      [id],
    );
    if (!options.dryRun) {
      const subscriptions = members.rows.map((row) => row.id);
      await recordGroupEvents(client, subscriptions, { groupId: id, action: 'remove' });
    }
    await client.query('DELETE FROM groups WHERE id = $1', [id]);
    const after = await countLinks(client);
    const linksEnded = before.links - after.links;
    const nodeIds = nodes.rows.map((row) => row.id);
    if (linksEnded > 0 && !options.dryRun) {
      await bumpNodes(client, nodeIds, `group ${name} removed`);
    }
    return {
      subscriptions: members.rows.length,
      protocols: protocols.rowCount ?? 0,
      linksEnded,
    };
  });
}

function requireNotDefault(name: string, done: 'renamed' | 'removed'): void {
  if (name !== defaultGroup) return;
  const reason = 'new protocols and subscriptions are put into it';
  throw new CoreError('INVALID_ARGUMENT', `The group ${defaultGroup} cannot be ${done}: ${reason}`);
}
