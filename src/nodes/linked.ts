import type { Queryable } from '../stores/postgres.ts';

// A link exists where the groups of a subscription and of a protocol meet, on a node that is not revoked. No
// table has a row for it, so whoever asks for links asks for these.

/** In SQL: the ids of the protocols that the groups of these subscriptions lead to, each once. */
export function linkedProtocolsSql(subscriptionIds: string): string {
  return `SELECT DISTINCT pg.node_protocol_id FROM protocol_groups pg WHERE pg.group_id IN (
      SELECT sg.group_id FROM subscription_groups sg WHERE sg.subscription_id = ANY (${subscriptionIds}))`;
}

/** The nodes that serve one of these subscriptions, or would serve it if it were active. */
export async function linkedNodes(
  db: Queryable,
  subscriptionIds: readonly number[],
): Promise<number[]> {
  const { rows } = await db.query<{ id: number }>(
    `SELECT DISTINCT p.node_id AS id FROM (${linkedProtocolsSql('$1::bigint[]')}) linked
     JOIN node_protocols p ON p.id = linked.node_protocol_id
     JOIN nodes n ON n.id = p.node_id WHERE n.revoked_at IS NULL`,
    [subscriptionIds],
  );
  return rows.map((row) => row.id);
}

/** The links that end with their protocols. */
export interface LinkCounts {
  links: number;
  /** Links of active subscriptions: a client can connect with them now. */
  linksInUse: number;
}

/**
 * Counts the links to these protocols, or all of the fleet if no protocols are given. Protocols in the same
 * groups have the same subscriptions. So it counts once for each set of groups, and a fleet with a billion
 * links is counted within a second.
 */
export async function countLinks(
  db: Queryable,
  nodeProtocolIds?: readonly number[],
): Promise<LinkCounts> {
  const { rows } = await db.query<LinkCounts>(
    `WITH protocols AS (
       SELECT pg.node_protocol_id, array_agg(pg.group_id ORDER BY pg.group_id) AS groups
       FROM protocol_groups pg
       JOIN node_protocols p ON p.id = pg.node_protocol_id
       JOIN nodes n ON n.id = p.node_id
       WHERE n.revoked_at IS NULL AND ($1::bigint[] IS NULL OR p.id = ANY ($1))
       GROUP BY pg.node_protocol_id
     ), protocol_sets AS (
       SELECT groups, count(*) AS protocols FROM protocols GROUP BY groups
     ), subscriptions_in AS (
       SELECT sg.subscription_id, array_agg(sg.group_id ORDER BY sg.group_id) AS groups
       FROM subscription_groups sg GROUP BY sg.subscription_id
     ), subscription_sets AS (
       SELECT i.groups, count(*) AS subscriptions,
         count(*) FILTER (WHERE s.status = 'active') AS active
       FROM subscriptions_in i JOIN subscriptions s ON s.id = i.subscription_id GROUP BY i.groups
     )
     SELECT coalesce(sum(p.protocols * s.subscriptions), 0)::float8 AS links,
       coalesce(sum(p.protocols * s.active), 0)::float8 AS "linksInUse"
     FROM protocol_sets p JOIN subscription_sets s ON p.groups && s.groups`,
    [nodeProtocolIds ?? null],
  );
  return rows[0] ?? { links: 0, linksInUse: 0 };
}

/** Protocols that go from some groups to others. */
export interface GroupMove {
  /** Ids of groups. */
  before: readonly number[];
  after: readonly number[];
}

/**
 * The links that would end with each of these moves, in their order. It reads the groups of the
 * subscriptions once for all moves.
 */
export async function countLinksOfMoves(
  db: Queryable,
  moves: readonly GroupMove[],
): Promise<LinkCounts[]> {
  if (moves.length === 0) return [];
  const { rows } = await db.query<LinkCounts>(
    `WITH moves AS (
       SELECT ordinality AS at, before, after
       FROM ROWS FROM (jsonb_to_recordset($1::jsonb) AS (before integer[], after integer[])) WITH ORDINALITY
     ), subscriptions_in AS (
       SELECT sg.subscription_id, array_agg(sg.group_id) AS groups
       FROM subscription_groups sg GROUP BY sg.subscription_id
     ), subscription_sets AS (
       SELECT i.groups, count(*) AS subscriptions,
         count(*) FILTER (WHERE s.status = 'active') AS active
       FROM subscriptions_in i JOIN subscriptions s ON s.id = i.subscription_id GROUP BY i.groups
     )
     SELECT coalesce(sum(s.subscriptions), 0)::float8 AS links,
       coalesce(sum(s.active), 0)::float8 AS "linksInUse"
     FROM moves m LEFT JOIN subscription_sets s ON m.before && s.groups AND NOT m.after && s.groups
     GROUP BY m.at ORDER BY m.at`,
    [JSON.stringify(moves)],
  );
  return rows;
}
