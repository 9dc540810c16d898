import type pg from 'pg';
import type { Config } from '../../src/config.ts';
import { createNode } from '../../src/nodes/change.ts';
import { registerNode } from '../../src/nodes/registration.ts';
import { validateProtocolSettings } from '../../src/protocols/settings.ts';
import { eachBounded } from '../../test/harness/simulator/each.ts';

/** The nodes that send, and the subscriptions that have the traffic. */
export interface BenchWorld {
  /** Auth keys of registered nodes, all 43 characters. */
  keys: string[];
  nodeIds: number[];
  userIds: number[];
  subscriptionIds: number[];
  nodeProtocolIds: number[];
}

/** All ids have seven digits, so that all entries are equally long. */
const firstId = 1_000_001;
const creatingMax = 16;
const rowsAtOnceMax = 10_000;

/**
 * Creates and registers nodes as the CLI and the route do, with one protocol each, and users with one
 * subscription each. They are in no group, so there are no links, since the benches that use it do not measure
 * configurations.
 */
export async function createBenchWorld(
  pool: pg.Pool,
  config: Config,
  counts: { nodes: number; subscriptions: number },
): Promise<BenchWorld> {
  for (const table of ['node_protocols', 'users', 'subscriptions']) {
    await pool.query(`ALTER TABLE ${table} ALTER COLUMN id RESTART WITH ${firstId}`);
  }
  const { keys, nodeIds } = await registerNodes(pool, config, counts.nodes);
  const nodeProtocolIds = await createProtocols(pool, nodeIds);
  const userIds: number[] = [];
  const subscriptionIds: number[] = [];
  for (let first = 0; first < counts.subscriptions; first += rowsAtOnceMax) {
    const count = Math.min(rowsAtOnceMax, counts.subscriptions - first);
    for (const row of await createSubscriptions(pool, first, count)) {
      userIds.push(row.user_id);
      subscriptionIds.push(row.id);
    }
  }
  // In a Core with this many rows autovacuum would have done it long ago.
  await pool.query('VACUUM ANALYZE subscriptions, users, nodes');
  return { keys, nodeIds, userIds, subscriptionIds, nodeProtocolIds };
}

async function registerNodes(pool: pg.Pool, config: Config, count: number) {
  const keys: string[] = new Array(count);
  const nodeIds: number[] = new Array(count);
  await eachBounded(Array.from({ length: count }), creatingMax, async (_, index) => {
    const node = {
      name: `bench-${index + 1}`,
      host: `bench-${index + 1}.example.net`,
      ip: `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`,
      region: 'eu-central',
    };
    const { code } = await createNode(pool, node, config.nodes);
    const registered = await registerNode(pool, { ...node, code });
    keys[index] = registered.authKey;
    nodeIds[index] = registered.nodeId;
  });
  return { keys, nodeIds };
}

async function createProtocols(pool: pg.Pool, nodeIds: readonly number[]): Promise<number[]> {
  const settings = JSON.stringify(validateProtocolSettings('VLESS', {}));
  const { rows } = await pool.query<{ id: number }>(
    `INSERT INTO node_protocols (node_id, protocol, port, settings)
     SELECT node_id, 'VLESS', 443, $2 FROM unnest($1::integer[]) AS node_id RETURNING id`,
    [nodeIds, settings],
  );
  return rows.map(({ id }) => id);
}

async function createSubscriptions(
  pool: pg.Pool,
  first: number,
  count: number,
): Promise<{ id: number; user_id: number }[]> {
  const { rows } = await pool.query<{ id: number; user_id: number }>(
    `WITH made AS (
       INSERT INTO users (name)
       SELECT 'bench-' || n FROM generate_series($1::integer, $2::integer) AS n RETURNING id
     )
     INSERT INTO subscriptions (user_id) SELECT id FROM made RETURNING id, user_id`,
    [first + 1, first + count],
  );
  return rows;
}
