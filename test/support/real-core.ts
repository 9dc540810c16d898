import type { Test } from 'tap';
import { startWorker } from '../../src/app/worker.ts';
import { until } from './api.ts';
import { startCore } from './core-process.ts';
import { waitMsMax } from './real-node.ts';
import { openDatabases } from './stores.ts';

export interface Bytes {
  up: number;
  down: number;
}

export type RealCore = Awaited<ReturnType<typeof startRealCore>>;

/** Core on stores of its own: the api is a process that can be killed, the worker runs in this one. */
export async function startRealCore(t: Test) {
  const stores = await openDatabases(t, { CORE_LOG_LEVEL: 'info' });
  const { log, pool, clickhouse, config } = stores;
  await stores.migrate();
  const worker = await startWorker(config, log);
  t.teardown(() => worker.close());
  const url = `http://127.0.0.1:${config.http.port}`;
  const ready = () =>
    fetch(`${url}/readyz`).then(
      (response) => response.status,
      () => 0,
    );
  return {
    pool,
    url,
    config,
    async serve() {
      const api = startCore(t, ['serve'], stores.environment);
      await until(ready, (status) => status === 200, waitMsMax).catch((cause: unknown) => {
        throw new Error(`the api is not ready: ${api.stderr.join('\n')}`, { cause });
      });
      return api;
    },
    rows: async <T>(query: string): Promise<T[]> =>
      (await clickhouse.query({ query, format: 'JSONEachRow' })).json<T>(),
    /** Bytes of a link as the rows sum up, and of its subscription as the counter says. */
    async stored(link: {
      subscriptionId: number;
      nodeProtocolId: number;
    }): Promise<Bytes & { counted: Bytes }> {
      const { subscriptionId, nodeProtocolId } = link;
      const result = await clickhouse.query({
        query: `SELECT sum(bytes_up) AS up, sum(bytes_down) AS down FROM usage
          WHERE subscription_id = ${subscriptionId} AND node_protocol_id = ${nodeProtocolId}`,
        format: 'JSONEachRow',
      });
      const [row] = await result.json<{ up: string; down: string }>();
      const { rows } = await pool.query<Bytes>(
        `SELECT traffic_bytes_up AS up, traffic_bytes_down AS down FROM subscriptions WHERE id = $1`,
        [subscriptionId],
      );
      const counted = { up: Number(rows[0]?.up), down: Number(rows[0]?.down) };
      return { up: Number(row?.up ?? 0), down: Number(row?.down ?? 0), counted };
    },
    async node(nodeId: number) {
      const { rows } = await pool.query(
        `SELECT revision, change_seq > published_seq AS pending, applied_revision AS applied,
           sync_status AS sync, error_code AS error FROM nodes WHERE id = $1`,
        [nodeId],
      );
      return rows[0] as {
        revision: number;
        pending: boolean;
        applied: number;
        sync: string;
        error: string | null;
      };
    },
  };
}
