import type pg from 'pg';
import { inTransaction } from '../stores/postgres.ts';
import { bumpNodes } from './bump.ts';
import { requireNode } from './require.ts';

/** What an operator may set of a node; what is absent stays. */
export interface NodeChange {
  name?: string | undefined;
  region?: string | undefined;
  host?: string | undefined;
  ip?: string | undefined;
}

/**
 * Changes what a node is called and where it is. What a node reports of its name, host and region
 * does not replace this; its address is the one that it reported last. An empty host or region is what
 * the node reports.
 * @throws CoreError NOT_FOUND.
 */
export async function updateNode(pool: pg.Pool, nodeId: number, change: NodeChange): Promise<void> {
  await inTransaction(pool, (client) => changeNode(client, nodeId, change));
}

/** The same in a transaction that the caller has open. */
export async function changeNode(
  client: pg.PoolClient,
  nodeId: number,
  change: NodeChange,
): Promise<void> {
  await requireNode(client, nodeId);
  await client.query(
    `UPDATE nodes SET name = coalesce($2, name), region = coalesce($3, region),
       host = coalesce($4, host), ip = coalesce($5, ip) WHERE id = $1`,
    [nodeId, change.name ?? null, change.region ?? null, change.host ?? null, change.ip ?? null],
  );
  // The host or the address may stand in its configuration.
  await bumpNodes(client, [nodeId], 'node settings');
}
