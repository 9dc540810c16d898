import pg from 'pg';
import type { Logger } from '../log.ts';

export interface Listener {
  /** Whether the connection answered so recently that no notification can have been missed for long. */
  isProven(): boolean;
  close(): Promise<void>;
}

const pingEveryMs = 500;
/** The connection counts as alive for this long after a question that it answered. */
const proofLifeMs = 900;

/**
 * Listens on a channel until it is closed, and reconnects for as long as that takes. `onPayload` gets the
 * payload of each notification, and undefined at every new connection: what was notified before it is
 * unknown.
 */
export function listen(
  databaseUrl: string,
  channel: string,
  log: Logger,
  onPayload: (payload: string | undefined) => void,
): Listener {
  // Every request reads this flag. A timer clears it, so that no request has to read the clock.
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
    await fresh.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
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
