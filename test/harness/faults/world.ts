import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { createNode } from '../../../src/nodes/change.ts';
import { registerNode } from '../../../src/nodes/registration.ts';
import { createSubscription } from '../../../src/subscriptions/create.ts';
import { createUser } from '../../../src/subscriptions/users.ts';

export interface FaultNode {
  nodeId: number;
  authKey: string;
  /** Its stream of numbered posts, and the greatest number that it has used. */
  stream: string;
  greatest: number;
}

/** The nodes that post, and the subscriptions that have the traffic. */
export interface FaultWorld {
  nodes: FaultNode[];
  subscriptionIds: number[];
}

const nodeCount = 6;
const subscriptionCount = 8;

/** Every shard has several nodes, and all of them report on the same subscriptions. */
export async function createFaultWorld(pool: pg.Pool): Promise<FaultWorld> {
  const nodes: FaultNode[] = [];
  for (let index = 1; index <= nodeCount; index += 1) {
    const name = `fault-${index}`;
    const about = { name, region: 'eu', host: `${name}.example.net`, ip: '198.51.100.7' };
    const { code } = await createNode(pool, about, { registrationSeconds: 3_600 });
    const registered = await registerNode(pool, { code, ...about });
    nodes.push({ ...registered, stream: randomUUID(), greatest: 0 });
  }
  const subscriptionIds: number[] = [];
  for (let index = 1; index <= subscriptionCount; index += 1) {
    const userId = await createUser(pool, { name: `fault-${index}` });
    const made = await createSubscription(pool, {
      userId,
      trafficLimitBytes: null,
      expiresAt: null,
    });
    subscriptionIds.push(made.subscriptionId);
  }
  return { nodes, subscriptionIds };
}

/**
 * Marks the tags of earlier rounds as configured. The oracle finds each outbound post by a tag of its own,
 * and a node has counters for only 64 tags that nobody configured.
 */
export async function keepOutboundTags(pool: pg.Pool, { nodes }: FaultWorld): Promise<void> {
  await pool.query(
    'UPDATE node_outbounds SET configured = true WHERE node_id = ANY ($1::integer[])',
    [nodes.map(({ nodeId }) => nodeId)],
  );
}
