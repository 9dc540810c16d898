import type pg from 'pg';
import type { Queryable } from '../stores/postgres.ts';
import { groupIds } from './names.ts';

// The groups of one protocol or of one subscription. A function that changes them works in a transaction of the
// caller, which holds the lock of the links alone (`lockLinks(client, 'groups')`), and marks no node.

/**
 * Puts a protocol into exactly these groups.
 * @returns whether anything changed.
 * @throws CoreError INVALID_ARGUMENT naming the groups that do not exist, and those that do.
 */
export function setProtocolGroups(
  client: pg.PoolClient,
  nodeProtocolId: number,
  names: readonly string[],
): Promise<boolean> {
  return setGroups(client, protocolSide, nodeProtocolId, names);
}

/** The same for a subscription. */
export function setSubscriptionGroups(
  client: pg.PoolClient,
  subscriptionId: number,
  names: readonly string[],
): Promise<boolean> {
  return setGroups(client, subscriptionSide, subscriptionId, names);
}

/** How many links a protocol would get and lose in these groups. */
export function protocolGroupEffects(
  db: Queryable,
  nodeProtocolId: number,
  names: readonly string[],
): Promise<GroupEffects> {
  return groupEffects(db, protocolSide, nodeProtocolId, names);
}

/** The same for a subscription. */
export function subscriptionGroupEffects(
  db: Queryable,
  subscriptionId: number,
  names: readonly string[],
): Promise<GroupEffects> {
  return groupEffects(db, subscriptionSide, subscriptionId, names);
}

interface GroupEffects {
  linksAdded: number;
  linksEnded: number;
}

interface Side {
  table: string;
  id: string;
  /** The table of what it meets in a group. */
  other: string;
  otherId: string;
}

const protocolSide: Side = {
  table: 'protocol_groups',
  id: 'node_protocol_id',
  other: 'subscription_groups',
  otherId: 'subscription_id',
};
const subscriptionSide: Side = {
  table: 'subscription_groups',
  id: 'subscription_id',
  other: 'protocol_groups',
  otherId: 'node_protocol_id',
};

async function setGroups(
  client: pg.PoolClient,
  { table, id }: Side,
  member: number,
  names: readonly string[],
): Promise<boolean> {
  const groups = await groupIds(client, names);
  const left = await client.query(
    `DELETE FROM ${table} WHERE ${id} = $1 AND group_id <> ALL ($2::integer[])`,
    [member, groups],
  );
  const joined = await client.query(
    `INSERT INTO ${table} (${id}, group_id) SELECT $1, given FROM unnest($2::integer[]) AS given
     ON CONFLICT DO NOTHING`,
    [member, groups],
  );
  return (left.rowCount ?? 0) + (joined.rowCount ?? 0) > 0;
}

async function groupEffects(
  db: Queryable,
  { table, id, other, otherId }: Side,
  member: number,
  names: readonly string[],
): Promise<GroupEffects> {
  const { rows } = await db.query<GroupEffects>(
    `SELECT count(*) FILTER (WHERE NOT before)::integer AS "linksAdded",
       count(*) FILTER (WHERE NOT after)::integer AS "linksEnded"
     FROM (
       SELECT ${otherId}, bool_or(group_id = ANY ($2::integer[])) AS after,
         bool_or(group_id IN (SELECT group_id FROM ${table} WHERE ${id} = $1)) AS before
       FROM ${other} WHERE group_id = ANY ($2::integer[])
         OR group_id IN (SELECT group_id FROM ${table} WHERE ${id} = $1)
       GROUP BY ${otherId}
     ) met`,
    [member, await groupIds(db, names)],
  );
  return rows[0] ?? { linksAdded: 0, linksEnded: 0 };
}
