import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { bumpNodes } from '../nodes/bump.ts';
import { countLinks } from '../nodes/linked.ts';
import { lockLinks } from '../nodes/lock-links.ts';
import { inDryTransaction } from './dry-transaction.ts';
import { recordGroupEvents } from './group-events.ts';
import { groupId } from './names.ts';

/** Ids from `from` to `to`. Of several, those count that exist. */
export interface IdRange {
  from: number;
  to: number;
}

/** Some objects by their ids, or all of them. */
export type Selection = readonly IdRange[] | 'all';

/** Who comes into a group, or leaves it. */
export interface MembersChange {
  group: string;
  action: 'add' | 'remove';
  subscriptions?: Selection | undefined;
  protocols?: Selection | undefined;
  /** All protocols of these nodes. */
  nodes?: readonly IdRange[] | undefined;
}

interface ChangedMembers {
  /** Members that were not in the group before, or are not any more. */
  subscriptions: number;
  protocols: number;
  linksAdded: number;
  linksEnded: number;
  /** Nodes that get a new revision if a change is for a subscription that is active. */
  nodes: number;
}

/**
 * Adds members to a group or removes them, in one transaction that marks each node once. A member that is in the
 * group already, or is not, stays as it is. With `dryRun` it only says what would change.
 * @throws CoreError NOT_FOUND naming the group, subscription, protocol or node that does not exist.
 */
export async function changeMembers(
  pool: pg.Pool,
  change: MembersChange,
  options: { dryRun: boolean },
): Promise<ChangedMembers> {
  return inDryTransaction(pool, options.dryRun, async (client) => {
    const subscriptionIds = await selectIds(client, 'subscription', change.subscriptions);
    await lockLinks(client, 'groups');
    const id = await groupId(client, change.group);
    const protocolIds = [
      ...(await selectIds(client, 'protocol', change.protocols)),
      ...(await protocolsOfNodes(client, change.nodes)),
    ];
    const before = await countLinks(client);
    const nodesBefore = await nodesOfGroup(client, id);
    const protocols = await changeRows(client, 'protocol', change.action, id, protocolIds);
    const subscriptions = await changeRows(
      client,
      'subscription',
      change.action,
      id,
      subscriptionIds,
    );
    const { links } = await countLinks(client);
    const nodeIds = await touchedNodes(client, id, nodesBefore, subscriptions.length, protocols);
    if (!options.dryRun) {
      await recordGroupEvents(client, subscriptions, { groupId: id, action: change.action });
      await bumpNodes(client, nodeIds, `members of group ${change.group}`);
    }
    return {
      subscriptions: subscriptions.length,
      protocols: protocols.length,
      linksAdded: Math.max(0, links - before.links),
      linksEnded: Math.max(0, before.links - links),
      nodes: nodeIds.length,
    };
  });
}

/** A changed subscription concerns every node of the group; a changed protocol, its own. */
async function touchedNodes(
  client: pg.PoolClient,
  id: number,
  nodesBefore: readonly number[],
  subscriptions: number,
  protocols: readonly number[],
): Promise<number[]> {
  const { rows } = await client.query<{ id: number }>(
    'SELECT DISTINCT node_id AS id FROM node_protocols WHERE id = ANY ($1::bigint[])',
    [protocols],
  );
  const own = rows.map((row) => row.id);
  if (subscriptions === 0) return own;
  return [...new Set([...own, ...nodesBefore, ...(await nodesOfGroup(client, id))])];
}

async function nodesOfGroup(client: pg.PoolClient, id: number): Promise<number[]> {
  const { rows } = await client.query<{ id: number }>(
    `SELECT DISTINCT p.node_id AS id FROM protocol_groups pg
     JOIN node_protocols p ON p.id = pg.node_protocol_id WHERE pg.group_id = $1`,
    [id],
  );
  return rows.map((row) => row.id);
}

type Kind = 'subscription' | 'protocol';
const tables = {
  subscription: { of: 'subscriptions', members: 'subscription_groups', id: 'subscription_id' },
  protocol: { of: 'node_protocols', members: 'protocol_groups', id: 'node_protocol_id' },
} as const;

/** @returns the ids whose membership changed. */
async function changeRows(
  client: pg.PoolClient,
  kind: Kind,
  action: MembersChange['action'],
  group: number,
  ids: readonly number[],
): Promise<number[]> {
  if (ids.length === 0) return [];
  const { members, id } = tables[kind];
  const sql =
    action === 'add'
      ? `INSERT INTO ${members} (group_id, ${id}) SELECT DISTINCT $1::integer, given
         FROM unnest($2::bigint[]) AS given ON CONFLICT DO NOTHING RETURNING ${id} AS id`
      : `DELETE FROM ${members} WHERE group_id = $1 AND ${id} = ANY ($2::bigint[]) RETURNING ${id} AS id`;
  const { rows } = await client.query<{ id: number }>(sql, [group, ids]);
  return rows.map((row) => row.id);
}

async function selectIds(
  client: pg.PoolClient,
  kind: Kind,
  selection: Selection | undefined,
): Promise<number[]> {
  if (selection === undefined) return [];
  const { of } = tables[kind];
  // Locked, so that nobody deletes one meanwhile, and in the order in which everybody locks them.
  if (selection === 'all') {
    const { rows } = await client.query<{ id: number }>(
      `SELECT id FROM ${of} ORDER BY id FOR KEY SHARE`,
    );
    return rows.map((row) => row.id);
  }
  const ids = await idsInRanges(
    client,
    `SELECT id FROM ${of} WHERE id BETWEEN r.first AND r.last ORDER BY id FOR KEY SHARE`,
    selection.toSorted((left, right) => left.from - right.from),
  );
  requireAll(kind, selection, ids);
  return ids;
}

async function protocolsOfNodes(
  client: pg.PoolClient,
  nodes: readonly IdRange[] | undefined,
): Promise<number[]> {
  if (nodes === undefined) return [];
  const known = await idsInRanges(
    client,
    'SELECT id FROM nodes WHERE id BETWEEN r.first AND r.last',
    nodes,
  );
  requireAll('node', nodes, known);
  const { rows } = await client.query<{ id: number }>(
    'SELECT id FROM node_protocols WHERE node_id = ANY ($1::integer[])',
    [known],
  );
  return rows.map((row) => row.id);
}

async function idsInRanges(
  client: pg.PoolClient,
  inRange: string,
  ranges: readonly IdRange[],
): Promise<number[]> {
  const { rows } = await client.query<{ id: number }>(
    `SELECT found.id FROM unnest($1::bigint[], $2::bigint[]) AS r (first, last)
     CROSS JOIN LATERAL (${inRange}) AS found`,
    [ranges.map((range) => range.from), ranges.map((range) => range.to)],
  );
  return [...new Set(rows.map((row) => row.id))];
}

/** An id that is named by itself must exist. A range takes what there is, which must be something. */
function requireAll(
  kind: Kind | 'node',
  ranges: readonly IdRange[],
  found: readonly number[],
): void {
  const known = new Set(found);
  const missing = ranges.find(({ from, to }) => from === to && !known.has(from));
  if (missing !== undefined) {
    throw new CoreError('NOT_FOUND', `There is no ${kind} ${missing.from}`);
  }
  if (found.length > 0) return;
  throw new CoreError('NOT_FOUND', `There is no ${kind} with one of these ids`);
}
