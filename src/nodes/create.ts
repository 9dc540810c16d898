import assert from 'node:assert/strict';
import type pg from 'pg';
import { inTransaction } from '../stores/postgres.ts';
import { issueCode } from './codes.ts';

/** A node that can register once, with the code, before `expiresAt`. */
export interface IssuedNode {
  nodeId: number;
  /** Shown this once: only its hash is stored. */
  code: string;
  expiresAt: Date;
}

export interface NewNode {
  name: string;
  /** Empty: what the node reports. */
  region: string;
  /** Empty: what the node reports. */
  host: string;
  ip: string;
}

/** Adds a node and issues its registration code. Its revision 1 is rendered at its first need. */
export async function createNode(
  pool: pg.Pool,
  node: NewNode,
  options: { registrationSeconds: number },
): Promise<IssuedNode> {
  return inTransaction(pool, (client) => insertNode(client, node, options));
}

/** The same in a transaction that the caller has open. */
export async function insertNode(
  client: pg.PoolClient,
  node: NewNode,
  options: { registrationSeconds: number },
): Promise<IssuedNode> {
  const { rows } = await client.query<{ id: number }>(
    'INSERT INTO nodes (name, region, host, ip) VALUES ($1, $2, $3, $4) RETURNING id',
    [node.name, node.region, node.host, node.ip],
  );
  const nodeId = rows[0]?.id;
  assert(nodeId !== undefined, 'an insert returns its row');
  return { nodeId, ...(await issueCode(client, nodeId, options.registrationSeconds)) };
}
