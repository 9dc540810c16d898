import type pg from 'pg';
import { lockLinks } from '../stores/locks.ts';
import { inTransaction } from '../stores/postgres.ts';
import { nodeEffects } from './effects.ts';
import { notifyNode, requireNode } from './require.ts';

/**
 * Removes a node with its protocols, their links, its outbounds with their counters, its rules and
 * its history. What users moved over it stays in ClickHouse and in their counters. Its key stops
 * working at once.
 * @returns how many protocols and links went.
 * @throws CoreError NOT_FOUND.
 */
export async function deleteNode(
  pool: pg.Pool,
  nodeId: number,
): Promise<{ protocols: number; links: number }> {
  return inTransaction(pool, (client) => removeNode(client, nodeId));
}

/** The same in a transaction that the caller has open. */
export async function removeNode(
  client: pg.PoolClient,
  nodeId: number,
): Promise<{ protocols: number; links: number }> {
  await lockLinks(client, 'protocols');
  await requireNode(client, nodeId);
  const { protocols, links } = await nodeEffects(client, nodeId);
  await client.query('DELETE FROM nodes WHERE id = $1', [nodeId]);
  await notifyNode(client, nodeId);
  return { protocols, links };
}
