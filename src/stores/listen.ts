import pg from 'pg';
import type { Logger } from '../log.ts';

/** What a process may keep of a node (its key, its revision) has changed; the payload is its id. */
export const nodesChannel = 'core_nodes';
/** A change waits to be published; see nodes/bump.ts. */
export const changesChannel = 'core_changes';

export interface NodeListener {
  /** Whether the connection answered so lately that no notification can have been missed for long. */
  isProven(): boolean;
  close(): Promise<void>;
}

const pingEveryMs = 500;
/** The connection counts as alive this long after it was last asked and answered. */
const proofLifeMs = 900;

/**
 * Listens on `nodesChannel`, which is notified when a change of a node commits. `onNode` is given the node's id, or undefined where
 * notifications may have been missed (at every new connection) and so any node may have changed.
 */
export function listenForNodes(
  databaseUrl: string,
  log: Logger,
  onNode: (nodeId: number | undefined) => void,
): NodeListener {
  return listen(databaseUrl, nodesChannel, log, (payload) => {
    const nodeId = payload === undefined || payload === '' ? Number.NaN : Number(payload);
    onNode(Number.isSafeInteger(nodeId) ? nodeId : undefined);
  });
}

/**
 * Listens on a channel. `onPayload` is given what was notified, or undefined at every new
 * connection, since notifications may have been missed. Reconnects for ever.
 */
export function listen(
  databaseUrl: string,
  channel: typeof nodesChannel | typeof changesChannel,
  log: Logger,
  onPayload: (payload: string | undefined) => void,
): NodeListener {
  // Asked at every request, so it reads no clock.
  let isProven = false;
  let lapse: NodeJS.Timeout | undefined;
  let client: pg.Client | undefined;
  let closed = false;
  let timer: NodeJS.Timeout | undefined;

  const connect = async (): Promise<pg.Client> => {
    const fresh = new pg.Client({
      connectionString: databaseUrl,
      connectionTimeoutMillis: 2_000,
      query_timeout: 2_000,
      application_name: 'core listener',
    });
    fresh.on('error', () => undefined);
    fresh.on('notification', (message) => onPayload(message.payload ?? ''));
    await fresh.connect();
    await fresh.query(`LISTEN ${channel}`);
    // Whatever was notified while nobody listened is unknown, so everything is.
    onPayload(undefined);
    return fresh;
  };

  const proven = (askedAtMs: number): void => {
    // An answer proves that the connection was alive when it was asked, not later.
    const leftMs = proofLifeMs - (performance.now() - askedAtMs);
    isProven = leftMs > 0;
    clearTimeout(lapse);
    lapse = setTimeout(() => {
      isProven = false;
    }, leftMs);
  };

  const prove = async (): Promise<void> => {
    const askedAtMs = performance.now();
    try {
      client ??= await connect();
      await client.query('SELECT 1');
      proven(askedAtMs);
    } catch (error) {
      log.warn({ err: error }, 'not listening for changes, asking Postgres instead');
      const broken = client;
      client = undefined;
      await broken?.end().catch(() => undefined);
    }
    if (!closed) timer = setTimeout(() => (proving = prove()), pingEveryMs);
  };
  let proving = prove();

  return {
    isProven: () => isProven,
    async close() {
      closed = true;
      clearTimeout(timer);
      await proving;
      clearTimeout(timer);
      clearTimeout(lapse);
      await client?.end();
    },
  };
}
