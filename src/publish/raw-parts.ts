import type { NodeRows } from '../render/node-rows.ts';
import type { Queryable } from '../stores/postgres.ts';

/** A part of a node's settings with `raw`, which Core merges into the configuration without a check. */
export interface RawPart {
  /** `protocol 7 (VLESS)`, `outbound up` or `root`. */
  part: string;
  /** The names of its fields at the top. Their values may hold keys. */
  fields: string[];
}

/**
 * The parts of nodes that are raw, by node: the stored settings, also while the node is rolled back.
 * @param nodeId Only this node; otherwise all.
 */
export async function readRawParts(
  db: Queryable,
  nodeId?: number,
): Promise<Map<number, RawPart[]>> {
  const { rows } = await db.query<RawPart & { nodeId: number }>(
    `SELECT node_id AS "nodeId", part, ARRAY(SELECT jsonb_object_keys(raw) ORDER BY 1) AS fields
     FROM (
       SELECT node_id, 1 AS kind, id AS at, 'protocol ' || id || ' (' || protocol || ')' AS part,
         settings -> 'raw' AS raw FROM node_protocols
       UNION ALL
       SELECT node_id, 2, position, 'outbound ' || tag, options -> 'raw' FROM node_outbounds WHERE configured
       UNION ALL
       SELECT id, 3, 0, 'root', xray_settings -> 'raw' FROM nodes
     ) AS parts
     WHERE jsonb_typeof(raw) = 'object' AND ($1::integer IS NULL OR node_id = $1)
     ORDER BY node_id, kind, at, part`,
    [nodeId ?? null],
  );
  const found = new Map<number, RawPart[]>();
  for (const { nodeId, part, fields } of rows) {
    found.set(nodeId, [...(found.get(nodeId) ?? []), { part, fields }]);
  }
  return found;
}

/** Whether anything that a node is rendered from has `raw`. */
export function hasRaw({ protocols, outbounds, xray }: NodeRows): boolean {
  return (
    xray?.raw !== undefined ||
    outbounds.some(({ options }) => options?.raw !== undefined) ||
    protocols.some(({ settings }) => (settings as { raw?: unknown }).raw !== undefined)
  );
}
