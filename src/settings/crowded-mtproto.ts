import type { Queryable } from '../stores/postgres.ts';

/** `USER_LABELED_METRICS_MAX_USERS` of telemt: its metrics page has the bytes of no more users. */
const countedUsersMax = 4_096;

/**
 * A warning for each MTProto protocol with more active links than telemt counts, by the id of the protocol.
 * Protocols in the same groups have the same links, so it counts once for each set of groups.
 */
export async function crowdedMtprotoWarnings(
  db: Queryable,
  filter: { nodeId?: number | undefined; nodeProtocolId?: number | undefined },
): Promise<Map<number, string>> {
  const { rows } = await db.query<{ ids: number[]; links: number }>(
    `WITH protocols AS (
       SELECT p.id, array_agg(pg.group_id ORDER BY pg.group_id) AS groups
       FROM node_protocols p JOIN protocol_groups pg ON pg.node_protocol_id = p.id
       WHERE p.protocol = 'MTPROTO' AND ($1::integer IS NULL OR p.node_id = $1)
         AND ($2::bigint IS NULL OR p.id = $2)
       GROUP BY p.id
     ), protocol_sets AS (
       SELECT groups, array_agg(id::float8) AS ids FROM protocols GROUP BY groups
     )
     SELECT p.ids, count(DISTINCT s.id)::float8 AS links
     FROM protocol_sets p JOIN subscription_groups sg ON sg.group_id = ANY (p.groups)
       JOIN subscriptions s ON s.id = sg.subscription_id AND s.status = 'active'
     GROUP BY p.groups, p.ids HAVING count(DISTINCT s.id) > $3`,
    [filter.nodeId ?? null, filter.nodeProtocolId ?? null, countedUsersMax],
  );
  return new Map(rows.flatMap(({ ids, links }) => ids.map((id) => [id, crowdedText(links)])));
}

function crowdedText(links: number): string {
  return `It has ${links} active links, and telemt reports the bytes of ${countedUsersMax} users that connected since its start: no limit applies to the others. Add another MTProto protocol, and split the users by groups.`;
}
