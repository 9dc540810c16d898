import assert from 'node:assert/strict';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpSettings } from '../nodes/bump.ts';
import { lockLiveNode, requireNode } from '../nodes/lock-node.ts';
import { inTransaction, type Queryable } from '../stores/postgres.ts';
import { requireReferences } from './references.ts';
import { type RoutingRule, validateRule } from './rule-schema.ts';

interface NodeRule {
  ruleId: number;
  /** From 1; Xray takes the first rule that matches. */
  position: number;
  rule: Record<string, unknown>;
}

/**
 * Adds a routing rule to a node, at a position counted from 1, or after all others.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT for a rule that Xray would refuse, an outbound, a
 * balancer or an inbound that the node does not have, or a revoked node.
 */
export async function addRule(
  pool: pg.Pool,
  added: { nodeId: number; rule: Record<string, unknown>; position?: number | undefined },
): Promise<{ ruleId: number; position: number }> {
  const { nodeId, position: wanted } = added;
  const rule = validateRule(added.rule);
  return inTransaction(pool, async (client) => {
    await lockLiveNode(client, nodeId);
    const { rows } = await client.query<{ id: number; position: number }>(
      `INSERT INTO routing_rules (node_id, position, rule)
       SELECT $1, coalesce(max(position), 0) + 1, $2 FROM routing_rules WHERE node_id = $1
       RETURNING id, position`,
      [nodeId, JSON.stringify(rule)],
    );
    const row = rows[0];
    assert(row !== undefined, 'an INSERT with RETURNING returns its row');
    const position = await reorder(client, nodeId, row.id, wanted);
    await requireReferences(client, nodeId);
    await bumpSettings(client, nodeId, `rule ${row.id} added`);
    return { ruleId: row.id, position };
  });
}

/** The rules of a node in their order. */
export async function listRules(db: Queryable, nodeId: number): Promise<NodeRule[]> {
  await requireNode(db, nodeId);
  const { rows } = await db.query<NodeRule>(
    `SELECT id AS "ruleId", row_number() OVER (ORDER BY position)::integer AS position, rule
     FROM routing_rules WHERE node_id = $1 ORDER BY routing_rules.position`,
    [nodeId],
  );
  return rows;
}

/**
 * Moves a rule to a position among its node's rules, counted from 1. A position beyond the end is the
 * last one.
 * @throws CoreError NOT_FOUND.
 */
export async function moveRule(
  pool: pg.Pool,
  ruleId: number,
  position: number,
): Promise<{ nodeId: number; position: number }> {
  return inTransaction(pool, async (client) => {
    const nodeId = await lockNodeOfRule(client, ruleId);
    const placed = await reorder(client, nodeId, ruleId, position);
    await bumpSettings(client, nodeId, `rule ${ruleId} moved`);
    return { nodeId, position: placed };
  });
}

/** @throws CoreError NOT_FOUND. */
export async function removeRule(pool: pg.Pool, ruleId: number): Promise<{ nodeId: number }> {
  return inTransaction(pool, async (client) => {
    const nodeId = await lockNodeOfRule(client, ruleId);
    await client.query('DELETE FROM routing_rules WHERE id = $1', [ruleId]);
    await bumpSettings(client, nodeId, `rule ${ruleId} removed`);
    return { nodeId };
  });
}

/** Replaces all rules of a node. The caller's transaction must have locked the node, and checks references. */
export async function replaceRules(
  client: pg.PoolClient,
  nodeId: number,
  rules: readonly RoutingRule[],
): Promise<void> {
  await client.query('DELETE FROM routing_rules WHERE node_id = $1', [nodeId]);
  await client.query(
    `INSERT INTO routing_rules (node_id, position, rule)
     SELECT $1, at, rule::jsonb FROM unnest($2::text[]) WITH ORDINALITY AS given (rule, at)`,
    [nodeId, rules.map((rule) => JSON.stringify(rule))],
  );
}

async function lockNodeOfRule(client: pg.PoolClient, ruleId: number): Promise<number> {
  const { rows } = await client.query<{ nodeId: number }>(
    'SELECT node_id AS "nodeId" FROM routing_rules WHERE id = $1',
    [ruleId],
  );
  const row = rows[0];
  if (row === undefined) throw new CoreError('NOT_FOUND', `There is no rule ${ruleId}`);
  await lockLiveNode(client, row.nodeId);
  return row.nodeId;
}

/** Numbers a node's rules from 1, with one rule at its wanted position. Returns that position. */
async function reorder(
  client: pg.PoolClient,
  nodeId: number,
  ruleId: number,
  wanted: number | undefined,
): Promise<number> {
  const { rows } = await client.query<{ id: number }>(
    'SELECT id FROM routing_rules WHERE node_id = $1 ORDER BY position',
    [nodeId],
  );
  const ids = rows.map((row) => row.id).filter((id) => id !== ruleId);
  if (ids.length === rows.length) throw new CoreError('NOT_FOUND', `There is no rule ${ruleId}`);
  const index = Math.min(ids.length, (wanted ?? ids.length + 1) - 1);
  ids.splice(index, 0, ruleId);
  // Positions must be unique at every moment, so the rules first get negative ones.
  await client.query(
    `UPDATE routing_rules r SET position = -given.at
     FROM unnest($1::bigint[]) WITH ORDINALITY AS given (id, at) WHERE r.id = given.id`,
    [ids],
  );
  await client.query('UPDATE routing_rules SET position = -position WHERE node_id = $1', [nodeId]);
  return index + 1;
}
