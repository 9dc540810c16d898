import assert from 'node:assert/strict';
import type pg from 'pg';

/** Traffic to add to one outbound. */
export interface OutboundTraffic {
  nodeId: number;
  tag: string;
  bytesUp: bigint;
  bytesDown: bigint;
}

/**
 * Adds traffic to outbounds, in the transaction that settles its segment. An unknown tag gets a
 * row that is not configured. Rows are written in key order, so that two segments settled side by
 * side never wait for each other.
 *
 * Sums are numeric, and a counter stops at the largest bigint: a node that reports nonsense must
 * not make the transaction, and with it the stream, fail for ever.
 * @returns how many rows named a node that does not exist; they are dropped.
 */
export async function addOutboundTraffic(
  client: pg.PoolClient,
  rows: readonly OutboundTraffic[],
): Promise<{ dropped: number }> {
  if (rows.length === 0) return { dropped: 0 };
  const { rows: counted } = await client.query<{ dropped: number }>(
    `WITH given AS MATERIALIZED (
       SELECT g.*, n.id IS NOT NULL AS known
       FROM unnest($1::integer[], $2::text[], $3::numeric[], $4::numeric[])
         AS g (node_id, tag, up, down)
       LEFT JOIN nodes n ON n.id = g.node_id
     ), added AS (
       INSERT INTO node_outbounds AS o
         (node_id, tag, configured, traffic_bytes_up, traffic_bytes_down)
       SELECT node_id, tag, false, least(sum(up), 9223372036854775807),
         least(sum(down), 9223372036854775807)
       FROM given WHERE known GROUP BY node_id, tag ORDER BY node_id, tag COLLATE "C"
       ON CONFLICT (node_id, tag) DO UPDATE SET
         traffic_bytes_up = least(
           o.traffic_bytes_up::numeric + excluded.traffic_bytes_up, 9223372036854775807),
         traffic_bytes_down = least(
           o.traffic_bytes_down::numeric + excluded.traffic_bytes_down, 9223372036854775807)
     )
     SELECT count(*)::integer AS dropped FROM given WHERE NOT known`,
    [
      rows.map((row) => row.nodeId),
      // Postgres text cannot hold U+0000.
      rows.map((row) => row.tag.replaceAll('\u0000', '\uFFFD')),
      rows.map((row) => row.bytesUp),
      rows.map((row) => row.bytesDown),
    ],
  );
  const result = counted[0];
  assert(result !== undefined, 'a count returns its row');
  return result;
}
