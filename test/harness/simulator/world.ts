import type pg from 'pg';
import type { Config } from '../../../src/config.ts';
import { bumpNodes } from '../../../src/nodes/bump.ts';
import { createNode } from '../../../src/nodes/change.ts';
import { validateProtocolSettings } from '../../../src/protocols/settings.ts';
import { linkUuid } from '../../../src/render/link-uuid.ts';
import { inTransaction } from '../../../src/stores/postgres.ts';
import { eachBounded } from './each.ts';
import type { FleetOptions } from './options.ts';

/** A user's subscription as a node knows it, with the UUIDs of its links on that node. */
export interface Member {
  userId: number;
  subscriptionId: number;
  uuids: string[];
}

export interface FleetNode {
  /** Counts from 0. The seed of the node's traffic depends on it, since ids differ from run to run. */
  index: number;
  nodeId: number;
  name: string;
  host: string;
  ip: string;
  region: string;
  /** The single-use registration code. */
  code: string;
  protocols: { id: number; protocol: 'VLESS' | 'MTPROTO' }[];
  outboundTags: string[];
  members: Member[];
}

export interface World {
  nodes: FleetNode[];
  subscriptionIds: number[];
}

/** No such subscription exists. Core stores its usage and counts it nowhere. */
export const ghostSubscriptionId = 4_000_000_000_000;

const regions = ['eu-central', 'eu-north', 'us-east', 'ap-south'];
/** Nobody configures `relay`: Core learns of it from reported usage. */
const outboundTags = ['direct', 'relay'];
/** Every third node has MTProto, too. */
const mtprotoEvery = 3;
const creatingMax = 8;
const rowsAtOnceMax = 10_000;

/**
 * Creates nodes with their codes, protocols and outbounds, a group for each node, and users with a subscription
 * each, which has the groups of a few nodes. It creates nodes one by one, as the CLI does, and everything
 * else by the thousand.
 */
export async function createWorld(
  pool: pg.Pool,
  config: Config,
  options: Pick<FleetOptions, 'nodes' | 'users' | 'nodesPerUser'>,
): Promise<World> {
  const nodes = await createNodes(pool, config, options.nodes);
  await createProtocols(pool, nodes);
  await createOutbounds(pool, nodes);
  const members: Member[] = [];
  for (let first = 0; first < options.users; first += rowsAtOnceMax) {
    const count = Math.min(rowsAtOnceMax, options.users - first);
    members.push(...(await createMembers(pool, first, count)));
  }
  assignMembers(nodes, members, options.nodesPerUser);
  await createGroups(pool, nodes);
  await inTransaction(pool, (client) =>
    bumpNodes(
      client,
      nodes.map((node) => node.nodeId),
      'fleet created',
    ),
  );
  return { nodes, subscriptionIds: members.map((member) => member.subscriptionId) };
}

async function createNodes(pool: pg.Pool, config: Config, count: number): Promise<FleetNode[]> {
  const { registrationSeconds } = config.nodes;
  const nodes: FleetNode[] = Array.from({ length: count }, (_, index) => ({
    index,
    nodeId: 0,
    name: `fleet-${index + 1}`,
    host: `fleet-${index + 1}.example.net`,
    ip: `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`,
    region: regions[index % regions.length] as string,
    code: '',
    protocols: [],
    outboundTags,
    members: [],
  }));
  await eachBounded(nodes, creatingMax, async (node) => {
    const { name, region, host, ip } = node;
    const issued = await createNode(pool, { name, region, host, ip }, { registrationSeconds });
    node.nodeId = issued.nodeId;
    node.code = issued.code;
  });
  return nodes;
}

async function createProtocols(pool: pg.Pool, nodes: readonly FleetNode[]): Promise<void> {
  const byId = new Map(nodes.map((node) => [node.nodeId, node]));
  const add = async (
    protocol: 'VLESS' | 'MTPROTO',
    port: number,
    on: readonly FleetNode[],
  ): Promise<void> => {
    const settings = validateProtocolSettings(protocol, {});
    const { rows } = await pool.query<{ id: number; node_id: number }>(
      `INSERT INTO node_protocols (node_id, protocol, port, settings)
       SELECT node_id, $2, $3, $4 FROM unnest($1::integer[]) AS node_id RETURNING id, node_id`,
      [on.map((node) => node.nodeId), protocol, port, JSON.stringify(settings)],
    );
    for (const row of rows) byId.get(row.node_id)?.protocols.push({ id: row.id, protocol });
  };
  await add('VLESS', 443, nodes);
  await add(
    'MTPROTO',
    8_443,
    nodes.filter((node) => node.index % mtprotoEvery === 0),
  );
}

async function createOutbounds(pool: pg.Pool, nodes: readonly FleetNode[]): Promise<void> {
  await pool.query(
    `INSERT INTO node_outbounds (node_id, tag, protocol, configured, position)
     SELECT node_id, 'direct', 'freedom', true, 1 FROM unnest($1::integer[]) AS node_id`,
    [nodes.map((node) => node.nodeId)],
  );
}

/** Creates `count` users and their subscriptions by one INSERT each. */
async function createMembers(pool: pg.Pool, first: number, count: number): Promise<Member[]> {
  return inTransaction(pool, async (client) => {
    const users = await client.query<{ id: number }>(
      `INSERT INTO users (name)
       SELECT 'fleet-' || n FROM generate_series($1::integer, $2::integer) AS n RETURNING id`,
      [first + 1, first + count],
    );
    const { rows } = await client.query<{ id: number; user_id: number }>(
      `INSERT INTO subscriptions (user_id)
       SELECT user_id FROM unnest($1::bigint[]) AS user_id RETURNING id, user_id`,
      [users.rows.map((row) => row.id)],
    );
    return rows.map((row) => ({ subscriptionId: row.id, userId: row.user_id, uuids: [] }));
  });
}

/**
 * Assigns each subscription to `nodesPerUser` nodes, so that several nodes, and so several streams, add
 * to one counter. Each node has its own copy of a member, with its own links.
 */
function assignMembers(nodes: FleetNode[], members: readonly Member[], nodesPerUser: number): void {
  const perUser = Math.min(nodesPerUser, nodes.length);
  // The last step stays below the number of nodes, so the nodes of one subscription differ.
  const stride = Math.max(1, Math.floor(nodes.length / perUser));
  members.forEach(({ userId, subscriptionId }, index) => {
    for (let copy = 0; copy < perUser; copy += 1) {
      const node = nodes[(index + copy * stride) % nodes.length] as FleetNode;
      node.members.push({ userId, subscriptionId, uuids: [] });
    }
  });
}

/** Creates a group for each node, with its protocols and its members, and derives the UUIDs of their links. */
async function createGroups(pool: pg.Pool, nodes: readonly FleetNode[]): Promise<void> {
  const { rows } = await pool.query<{ id: number; name: string }>(
    'INSERT INTO groups (name) SELECT unnest($1::text[]) RETURNING id, name',
    [nodes.map((node) => node.name)],
  );
  const groupIds = new Map(rows.map((row) => [row.name, row.id]));
  await pool.query(
    `INSERT INTO protocol_groups (group_id, node_protocol_id)
     SELECT * FROM unnest($1::integer[], $2::bigint[])`,
    [
      nodes.flatMap((node) => node.protocols.map(() => groupIds.get(node.name))),
      nodes.flatMap((node) => node.protocols.map(({ id }) => id)),
    ],
  );
  const members = nodes.flatMap((node) =>
    node.members.map(({ subscriptionId }) => ({ group: groupIds.get(node.name), subscriptionId })),
  );
  for (let first = 0; first < members.length; first += rowsAtOnceMax) {
    const part = members.slice(first, first + rowsAtOnceMax);
    await pool.query(
      `INSERT INTO subscription_groups (group_id, subscription_id)
       SELECT * FROM unnest($1::integer[], $2::bigint[])`,
      [part.map((one) => one.group), part.map((one) => one.subscriptionId)],
    );
  }
  for (const { members, protocols } of nodes) {
    for (const member of members) {
      member.uuids = protocols.map(({ id }) => linkUuid(member.subscriptionId, id));
    }
  }
}
