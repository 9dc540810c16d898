import type pg from 'pg';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { lockNode, requireNode } from './lock-node.ts';
import { lockOutboundTags, othersTag } from './outbound-traffic.ts';

/** Tags that nobody configured, and their counters. */
interface PrunableTags {
  tags: number;
  trafficBytesUp: number;
  trafficBytesDown: number;
}

const prunable = `SELECT count(*)::integer AS tags,
    least(coalesce(sum(traffic_bytes_up), 0), 9223372036854775807)::bigint AS "trafficBytesUp",
    least(coalesce(sum(traffic_bytes_down), 0), 9223372036854775807)::bigint AS "trafficBytesDown"`;
const isPrunable = 'node_id = $1 AND NOT configured AND tag <> $2';

/**
 * What `pruneOutbounds` would delete now.
 * @throws CoreError NOT_FOUND.
 */
export async function findPrunableTags(db: Queryable, nodeId: number): Promise<PrunableTags> {
  await requireNode(db, nodeId);
  const { rows } = await db.query<PrunableTags>(
    `${prunable} FROM node_outbounds WHERE ${isPrunable}`,
    [nodeId, othersTag],
  );
  return rows[0] ?? { tags: 0, trafficBytesUp: 0, trafficBytesDown: 0 };
}

/**
 * Deletes the rows of a node's tags that nobody configured. It adds their counters to `othersTag`, so
 * the sum of the node's counters stays. A tag that the node reports again gets a row again.
 * @returns what it deleted.
 * @throws CoreError NOT_FOUND.
 */
export async function pruneOutbounds(pool: pg.Pool, nodeId: number): Promise<PrunableTags> {
  return inTransaction(pool, async (client) => {
    await lockNode(client, nodeId);
    await lockOutboundTags(client);
    const found = await findPrunableTags(client, nodeId);
    if (found.tags === 0) return found;
    // Locks the rows in the same order as addOutboundTraffic, so that neither waits for the other.
    await client.query(
      `INSERT INTO node_outbounds AS o (node_id, tag, configured) VALUES ($1, $2, false)
       ON CONFLICT (node_id, tag) DO UPDATE SET traffic_bytes_up = o.traffic_bytes_up`,
      [nodeId, othersTag],
    );
    await client.query(
      `SELECT FROM node_outbounds WHERE ${isPrunable} ORDER BY tag COLLATE "C" FOR UPDATE`,
      [nodeId, othersTag],
    );
    const { rows } = await client.query<PrunableTags>(
      `WITH pruned AS (
         DELETE FROM node_outbounds WHERE ${isPrunable}
         RETURNING traffic_bytes_up, traffic_bytes_down
       ), moved AS (
         UPDATE node_outbounds SET
           traffic_bytes_up = least(traffic_bytes_up::numeric
             + (SELECT sum(traffic_bytes_up) FROM pruned), 9223372036854775807),
           traffic_bytes_down = least(traffic_bytes_down::numeric
             + (SELECT sum(traffic_bytes_down) FROM pruned), 9223372036854775807)
         WHERE node_id = $1 AND tag = $2
       )
       ${prunable} FROM pruned`,
      [nodeId, othersTag],
    );
    return rows[0] ?? found;
  });
}
