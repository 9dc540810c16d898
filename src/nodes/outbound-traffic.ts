import assert from 'node:assert/strict';
import type pg from 'pg';
import type { OutboundTraffic } from '../rows/sums.ts';
import { advisoryLocks, lockUntilCommit } from '../stores/advisory-locks.ts';

/**
 * The tag under which a node's traffic counts if there is no room for its own tag. No outbound can have
 * this tag. If a node reports it, that traffic counts here as well.
 */
export const othersTag = '(others)';
/** How many tags of one node that nobody configured have a row of their own. */
export const unconfiguredTagsMax = 64;

/**
 * Adds traffic to outbounds, in the transaction that settles its segments. An unknown tag gets a row that
 * is marked as not configured. A node has at most `unconfiguredTagsMax` of these, so that it cannot fill
 * the table; the traffic of its other tags counts under `othersTag`, so that no byte is lost. All
 * transactions write their rows in the same order, so no two of them can deadlock.
 *
 * Sums are numeric, and a counter stops at the largest bigint. Otherwise a node that reports nonsense
 * would make the transaction fail for ever, and its stream with it.
 * @returns how many rows name a node that does not exist; they are dropped.
 */
export async function addOutboundTraffic(
  client: pg.PoolClient,
  rows: readonly OutboundTraffic[],
): Promise<{ dropped: number }> {
  if (rows.length === 0) return { dropped: 0 };
  const nodeIds = rows.map((row) => row.nodeId);
  // Postgres text cannot hold U+0000.
  const tags = rows.map((row) => row.tag.replaceAll('\u0000', '\uFFFD'));
  // Nearly always false: then every tag without a row belongs to a node that has no room for it.
  const adds = await hasTagWithRoom(client, nodeIds, tags);
  if (adds) await lockOutboundTags(client);
  const { rows: counted } = await client.query<{ dropped: number }>(
    `WITH given AS MATERIALIZED (
       SELECT g.*, n.id IS NOT NULL AS known
       FROM unnest($1::integer[], $2::text[], $3::numeric[], $4::numeric[])
         AS g (node_id, tag, up, down)
       LEFT JOIN nodes n ON n.id = g.node_id
     ), summed AS MATERIALIZED (
       SELECT node_id, tag, sum(up) AS up, sum(down) AS down
       FROM given WHERE known GROUP BY node_id, tag
     ), unknown AS MATERIALIZED (
       SELECT s.node_id, s.tag,
         row_number() OVER (PARTITION BY s.node_id ORDER BY s.tag COLLATE "C") AS place
       FROM summed s LEFT JOIN node_outbounds o ON o.node_id = s.node_id AND o.tag = s.tag
       WHERE o.tag IS NULL AND s.tag <> $5
     ), rooms AS MATERIALIZED (
       SELECT asked.node_id, $6 - (${countUnconfigured}) AS room
       FROM (SELECT DISTINCT node_id FROM unknown) AS asked
     ), spilled AS (
       SELECT node_id, tag FROM unknown JOIN rooms USING (node_id) WHERE place > room
     ), placed AS (
       SELECT s.node_id, CASE WHEN spilled.tag IS NULL THEN s.tag ELSE $5 END AS tag, s.up, s.down
       FROM summed s LEFT JOIN spilled ON spilled.node_id = s.node_id AND spilled.tag = s.tag
     ), added AS (
       INSERT INTO node_outbounds AS o
         (node_id, tag, configured, traffic_bytes_up, traffic_bytes_down)
       SELECT node_id, tag, false, least(sum(up), 9223372036854775807),
         least(sum(down), 9223372036854775807)
       FROM placed GROUP BY node_id, tag ORDER BY node_id, tag <> $5, tag COLLATE "C"
       ON CONFLICT (node_id, tag) DO UPDATE SET
         traffic_bytes_up = least(
           o.traffic_bytes_up::numeric + excluded.traffic_bytes_up, 9223372036854775807),
         traffic_bytes_down = least(
           o.traffic_bytes_down::numeric + excluded.traffic_bytes_down, 9223372036854775807)
     )
     SELECT count(*)::integer AS dropped FROM given WHERE NOT known`,
    [
      nodeIds,
      tags,
      rows.map((row) => row.bytesUp),
      rows.map((row) => row.bytesDown),
      othersTag,
      adds ? unconfiguredTagsMax : 0,
    ],
  );
  const result = counted[0];
  assert(result !== undefined, 'a count returns one row');
  return result;
}

/** SQL that counts the rows of node `asked.node_id` that nobody configured, up to the bound. */
const countUnconfigured = `SELECT count(*)::integer FROM (
  SELECT FROM node_outbounds u
  WHERE u.node_id = asked.node_id AND NOT u.configured AND u.tag <> '${othersTag}'
  LIMIT ${unconfiguredTagsMax}) AS counted`;

/**
 * Whether there is a tag without a row whose node has room for one. Without the lock, another transaction
 * may change that.
 */
async function hasTagWithRoom(
  client: pg.PoolClient,
  nodeIds: readonly number[],
  tags: readonly string[],
): Promise<boolean> {
  const { rowCount } = await client.query(
    `WITH asked AS MATERIALIZED (
       SELECT DISTINCT g.node_id FROM unnest($1::integer[], $2::text[]) AS g (node_id, tag)
         JOIN nodes n ON n.id = g.node_id
         LEFT JOIN node_outbounds o ON o.node_id = g.node_id AND o.tag = g.tag
       WHERE o.tag IS NULL AND g.tag <> $3
     )
     SELECT FROM asked WHERE (${countUnconfigured}) < $4 LIMIT 1`,
    [nodeIds, tags, othersTag, unconfiguredTagsMax],
  );
  return rowCount === 1;
}

/**
 * Take it before adding or pruning tags that nobody configured. A node may have only a limited number of
 * them, and two streams may settle rows of one node while the number of shards changes. One lock serves
 * all nodes: a group may bring the first tags of thousands of nodes, and a lock for each would be too many.
 */
export async function lockOutboundTags(client: pg.PoolClient): Promise<void> {
  await lockUntilCommit(client, advisoryLocks.outboundTags);
}
