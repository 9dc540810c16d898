import type pg from 'pg';
import type { VpnProtocol } from '../contract/enums.ts';
import { inClientTransaction } from '../stores/postgres.ts';

/** Everything that a node's configuration is made of, as of one moment. */
export interface NodeRows {
  node: { id: number; host: string; ip: string; revision: number };
  protocols: ProtocolRow[];
  /** Only those that an operator configured. */
  outbounds: OutboundRow[];
  rules: RuleRow[];
  /** Only those of active subscriptions that have not run out. */
  links: LinkRow[];
}

export interface ProtocolRow {
  id: number;
  protocol: VpnProtocol;
  port: number;
  settings: unknown;
}

export interface OutboundRow {
  tag: string;
  protocol: string;
  settings: Record<string, unknown>;
  position: number;
}

export interface RuleRow {
  position: number;
  rule: Record<string, unknown>;
}

export interface LinkRow {
  uuid: string;
  nodeProtocolId: number;
  userId: number;
  subscriptionId: number;
  /** ISO 8601 in UTC. Read for MTPROTO only, whose configuration is the one that holds it. */
  expiresAt?: string | null;
}

/**
 * Reads a node's rows in one snapshot, so that they belong to the revision read with them.
 * Undefined where there is no such node. The client must not be in a transaction.
 */
export function loadNodeRows(client: pg.PoolClient, nodeId: number): Promise<NodeRows | undefined> {
  return inClientTransaction(client, async () => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
    const nodes = await client.query<NodeRows['node']>(
      'SELECT id, host, ip, revision FROM nodes WHERE id = $1',
      [nodeId],
    );
    const node = nodes.rows[0];
    if (node === undefined) return undefined;
    const protocols = await client.query<ProtocolRow>(
      'SELECT id, protocol, port, settings FROM node_protocols WHERE node_id = $1 ORDER BY id',
      [nodeId],
    );
    const outbounds = await client.query<OutboundRow>(
      `SELECT tag, protocol, settings, position FROM node_outbounds
       WHERE node_id = $1 AND configured AND protocol IS NOT NULL
       ORDER BY position, tag COLLATE "C"`,
      [nodeId],
    );
    const rules = await client.query<RuleRow>(
      'SELECT position, rule FROM routing_rules WHERE node_id = $1 ORDER BY position',
      [nodeId],
    );
    const links = await client.query<LinkRow>(linksSql, [nodeId]);
    return {
      node,
      protocols: protocols.rows,
      outbounds: outbounds.rows,
      rules: rules.rows,
      links: links.rows,
    };
  });
}

const linksSql = `
SELECT l.uuid, l.node_protocol_id AS "nodeProtocolId", s.user_id AS "userId",
       s.id AS "subscriptionId",
       CASE WHEN p.protocol = 'MTPROTO'
         THEN to_char(s.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
       END AS "expiresAt"
FROM node_protocols p
JOIN subscription_links l ON l.node_protocol_id = p.id
JOIN subscriptions s ON s.id = l.subscription_id
WHERE p.node_id = $1 AND s.status = 'active'
  AND (s.expires_at IS NULL OR s.expires_at > now())
ORDER BY l.uuid`;
