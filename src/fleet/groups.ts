import type pg from 'pg';
import type { Queryable } from '../stores/postgres.ts';

/** The group of a protocol for which the file says nothing. */
export const defaultGroup = 'default';

/** The names of the groups that each protocol is in, sorted. A protocol in none is absent. */
export async function readProtocolGroups(db: Queryable): Promise<Map<number, string[]>> {
  const { rows } = await db.query<{ nodeProtocolId: number; names: string[] }>(
    `SELECT p.node_protocol_id AS "nodeProtocolId", array_agg(g.name ORDER BY g.name) AS names
     FROM protocol_groups p JOIN groups g ON g.id = p.group_id GROUP BY 1`,
  );
  return new Map(rows.map(({ nodeProtocolId, names }) => [nodeProtocolId, names]));
}

/** Puts a protocol into exactly these groups, and makes the groups that do not exist. */
export async function setProtocolGroups(
  client: pg.PoolClient,
  nodeProtocolId: number,
  names: readonly string[],
): Promise<void> {
  await client.query(
    `INSERT INTO groups (name) SELECT name FROM unnest($1::text[]) AS given (name)
     ON CONFLICT (name) DO NOTHING`,
    [[...names].sort()],
  );
  await client.query(
    `DELETE FROM protocol_groups p USING groups g WHERE p.node_protocol_id = $1
       AND g.id = p.group_id AND NOT g.name = ANY ($2::text[])`,
    [nodeProtocolId, names],
  );
  await client.query(
    `INSERT INTO protocol_groups (node_protocol_id, group_id)
     SELECT $1, id FROM groups WHERE name = ANY ($2::text[]) ON CONFLICT DO NOTHING`,
    [nodeProtocolId, names],
  );
}
