import assert from 'node:assert/strict';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { bumpNodes } from './bump.ts';
import { requireNode } from './require.ts';

/** The outbound protocols that Xray knows; another name would make a node refuse its config. */
export const outboundProtocols = [
  'blackhole',
  'dns',
  'freedom',
  'http',
  'hysteria',
  'loopback',
  'shadowsocks',
  'socks',
  'trojan',
  'vless',
  'vmess',
  'wireguard',
] as const;
export type OutboundProtocol = (typeof outboundProtocols)[number];

export interface NodeOutbound {
  tag: string;
  trafficBytesUp: number;
  trafficBytesDown: number;
  /** False where the tag is known from usage reports only. */
  configured: boolean;
}

/**
 * Configures an outbound, after those the node has. A tag that is known from usage reports keeps
 * its counters.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT where the tag is configured already.
 */
export async function addOutbound(
  pool: pg.Pool,
  added: {
    nodeId: number;
    tag: string;
    protocol: OutboundProtocol;
    settings: Record<string, unknown>;
  },
): Promise<void> {
  const { nodeId, tag } = added;
  await inTransaction(pool, async (client) => {
    const node = await requireNode(client, nodeId);
    if (node.revoked) throw new CoreError('INVALID_ARGUMENT', `Node ${nodeId} is revoked`);
    const { rowCount } = await client.query(
      `INSERT INTO node_outbounds AS o (node_id, tag, protocol, settings, configured, position)
       SELECT $1, $2, $3, $4, true, coalesce(max(position), 0) + 1
       FROM node_outbounds WHERE node_id = $1 AND configured
       ON CONFLICT (node_id, tag) DO UPDATE SET protocol = excluded.protocol,
         settings = excluded.settings, configured = true, position = excluded.position
       WHERE NOT o.configured`,
      [nodeId, tag, added.protocol, JSON.stringify(added.settings)],
    );
    if (rowCount !== 1) {
      throw new CoreError('INVALID_ARGUMENT', `Node ${nodeId} has an outbound ${tag} already`);
    }
    await bumpNodes(client, [nodeId]);
  });
}

/**
 * The outbounds of a node, configured ones first in their order.
 * @throws CoreError NOT_FOUND.
 */
export async function listOutbounds(db: Queryable, nodeId: number): Promise<NodeOutbound[]> {
  const node = await db.query('SELECT 1 FROM nodes WHERE id = $1', [nodeId]);
  if (node.rowCount !== 1) throw new CoreError('NOT_FOUND', `There is no node ${nodeId}`);
  const { rows } = await db.query<NodeOutbound>(
    `SELECT tag, traffic_bytes_up AS "trafficBytesUp", traffic_bytes_down AS "trafficBytesDown",
       configured
     FROM node_outbounds WHERE node_id = $1 ORDER BY configured DESC, position, tag`,
    [nodeId],
  );
  return rows;
}

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
