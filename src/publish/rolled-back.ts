import type pg from 'pg';
import type { NodeSettings } from '../render/node-rows.ts';
import type { Queryable } from '../stores/postgres.ts';

// A node that is rolled back runs the settings of an earlier revision with the links of today. A protocol
// that was removed since has no links, so it is left out of those settings: nobody could use it, and some
// inbounds without users would admit everybody.

/** A protocol of an earlier revision that the node has no more. */
export interface LeftOutProtocol {
  nodeProtocolId: number;
  protocol: string;
  port: number;
}

/**
 * SQL that counts the protocols of kept settings that still exist.
 * @param settings SQL of the settings, as JSON.
 * @param nodeId SQL of the id of the node.
 */
export function keptProtocolsSql(settings: string, nodeId: string): string {
  return `SELECT count(*)::integer FROM jsonb_array_elements(${settings} -> 'protocols') AS kept
    JOIN node_protocols p ON p.id = (kept ->> 'id')::bigint AND p.node_id = ${nodeId}`;
}

/** SQL of a JSON array with a LeftOutProtocol for each protocol of kept settings that is gone. */
export function leftOutSql(settings: string, nodeId: string): string {
  return `SELECT coalesce(jsonb_agg(jsonb_build_object('nodeProtocolId', (kept ->> 'id')::bigint,
      'protocol', kept ->> 'protocol', 'port', (kept ->> 'port')::integer)
      ORDER BY (kept ->> 'id')::bigint), '[]')
    FROM jsonb_array_elements(${settings} -> 'protocols') AS kept
    WHERE NOT EXISTS (SELECT FROM node_protocols p
      WHERE p.id = (kept ->> 'id')::bigint AND p.node_id = ${nodeId})`;
}

/** The protocols of kept settings, by whether the node still has them. */
export async function readKeptProtocols(
  db: Queryable,
  nodeId: number,
  settingsHash: Buffer,
): Promise<{ kept: number; leftOut: LeftOutProtocol[] }> {
  const { rows } = await db.query<{ kept: number; leftOut: LeftOutProtocol[] }>(
    `SELECT (${keptProtocolsSql('s.settings', 's.node_id')}) AS kept,
       (${leftOutSql('s.settings', 's.node_id')}) AS "leftOut"
     FROM node_settings s WHERE s.node_id = $1 AND s.settings_hash = $2`,
    [nodeId, settingsHash],
  );
  return rows[0] ?? { kept: 0, leftOut: [] };
}

/** Takes the protocols that are gone out of the pinned settings of these nodes. */
export async function leaveOutRemoved(
  client: pg.PoolClient,
  pinned: ReadonlyMap<number, NodeSettings>,
): Promise<void> {
  if (pinned.size === 0) return;
  const { rows } = await client.query<{ id: number }>(
    'SELECT id FROM node_protocols WHERE node_id = ANY ($1::integer[])',
    [[...pinned.keys()]],
  );
  const existing = new Set(rows.map(({ id }) => id));
  for (const settings of pinned.values()) {
    settings.protocols = settings.protocols.filter(({ id }) => existing.has(id));
  }
}
