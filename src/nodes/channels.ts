import type pg from 'pg';
import type { Logger } from '../log.ts';
import { type Listener, listen } from '../stores/listen.ts';

/** Notified when what a process may keep of a node (its key, its revision) changes; the payload is its id. */
export const nodesChannel = 'core_nodes';
/** Notified when a change waits to be published; see bump.ts. */
export const changesChannel = 'core_changes';

/**
 * Listens on `nodesChannel`. `onNode` gets the id of the node that changed. It gets undefined if
 * notifications may have been missed, which is so at every new connection: any node may have changed.
 */
export function listenForNodes(
  databaseUrl: string,
  log: Logger,
  onNode: (nodeId: number | undefined) => void,
): Listener {
  return listen(databaseUrl, nodesChannel, log, (payload) => {
    const nodeId = payload === undefined || payload === '' ? Number.NaN : Number(payload);
    onNode(Number.isSafeInteger(nodeId) ? nodeId : undefined);
  });
}

/** Tells every process to drop the node from its cache, once the transaction commits. */
export async function notifyNode(client: pg.PoolClient, nodeId: number): Promise<void> {
  await client.query('SELECT pg_notify($1, $2::text)', [nodesChannel, nodeId]);
}
