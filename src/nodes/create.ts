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

/** Adds a node at revision 1 and issues its registration code. */
export async function createNode(
  pool: pg.Pool,
  node: { name: string; region: string; host: string; ip: string },
  options: { registrationSeconds: number },
): Promise<IssuedNode> {
  return inTransaction(pool, async (client) => {
    // Its first change is not held back by the second between bumps: nothing was bumped yet.
    const { rows } = await client.query<{ id: number }>(
      `INSERT INTO nodes (name, region, host, ip, revision_bumped_at)
       VALUES ($1, $2, $3, $4, to_timestamp(0)) RETURNING id`,
      [node.name, node.region, node.host, node.ip],
    );
    const nodeId = rows[0]?.id;
    assert(nodeId !== undefined, 'an insert returns its row');
    return { nodeId, ...(await issueCode(client, nodeId, options.registrationSeconds)) };
  });
}
