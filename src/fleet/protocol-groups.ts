import type { Queryable } from '../stores/postgres.ts';

/** The names of the groups that each protocol is in, sorted. A protocol in none is absent. */
export async function readProtocolGroups(db: Queryable): Promise<Map<number, string[]>> {
  const { rows } = await db.query<{ nodeProtocolId: number; names: string[] }>(
    `SELECT p.node_protocol_id AS "nodeProtocolId", array_agg(g.name ORDER BY g.name COLLATE "C") AS names
     FROM protocol_groups p JOIN groups g ON g.id = p.group_id GROUP BY 1`,
  );
  return new Map(rows.map(({ nodeProtocolId, names }) => [nodeProtocolId, names]));
}
