import { startApi } from '../../../src/app/api.ts';
import { migrate } from '../../../src/app/migrate.ts';
import { startWorker } from '../../../src/app/worker.ts';
import { readConfig } from '../../../src/config.ts';
import type { Lifecycle } from '../../../src/lifecycle.ts';
import { createLogger } from '../../../src/log.ts';
import { createClickHouse } from '../../../src/stores/clickhouse.ts';
import { createPool } from '../../../src/stores/postgres.ts';
import { commandLine } from '../../support/cli.ts';
import { freePorts } from '../../support/free-port.ts';
import { startTemporaryServers } from '../../support/temporary-servers.ts';

/** A Core with stores of its own, to which the run is an operator and a node. */
export type ConformanceCore = Awaited<ReturnType<typeof startConformanceCore>>;

/** Bytes that Core has of one subscription on one protocol, or of a subscription. */
export interface Bytes {
  up: number;
  down: number;
}

/** Starts the stores, an api and a worker. The lifecycle stops them and removes their folder. */
export async function startConformanceCore(lifecycle: Lifecycle, signal: AbortSignal) {
  const log = createLogger('warn');
  const servers = await startTemporaryServers('core-conformance-', log, signal);
  lifecycle.use('stores', () => servers.stop());
  const [http, admin] = await freePorts(2);
  const { postgresUrl, redisUrl, clickhouseUrl } = servers.config.stores;
  const environment = {
    CORE_PORT: String(http),
    CORE_ADMIN_PORT: String(admin),
    CORE_LOAD_INTERVAL_MS: '200',
    CORE_LOG_LEVEL: 'warn',
    CORE_SUBSCRIPTION_PAGES: 'true',
    DATABASE_URL: postgresUrl,
    REDIS_URL: redisUrl,
    CLICKHOUSE_URL: clickhouseUrl,
  };
  const config = readConfig(environment);
  await migrate(config, log);
  const worker = await startWorker(config, log);
  lifecycle.use('worker', () => worker.close());
  const api = await startApi(config, log);
  lifecycle.use('api', () => api.close());
  const pool = createPool(postgresUrl, { max: 2 });
  lifecycle.use('pool', () => pool.end());
  const clickhouse = createClickHouse(clickhouseUrl);
  lifecycle.use('clickhouse', () => clickhouse.close());
  return {
    url: `http://127.0.0.1:${api.port}`,
    /** Runs `core …` and returns its JSON. */
    command: commandLine(environment).json,
    /** Sums of the rows in ClickHouse, by `subscriptionId nodeProtocolId`. */
    async rows(nodeId: number): Promise<Map<string, Bytes>> {
      const result = await clickhouse.query({
        query: `SELECT concat(toString(subscription_id), ' ', toString(node_protocol_id)) AS key,
            sum(bytes_up) AS up, sum(bytes_down) AS down
          FROM usage WHERE node_id = {nodeId:UInt64} GROUP BY key`,
        query_params: { nodeId },
        format: 'JSONEachRow',
      });
      const rows = await result.json<{ key: string; up: string; down: string }>();
      return new Map(
        rows.map(({ key, up, down }) => [key, { up: Number(up), down: Number(down) }]),
      );
    },
    /** The counters in Postgres, by subscription. */
    async counters(): Promise<Map<number, Bytes>> {
      const { rows } = await pool.query<{ id: number } & Bytes>(
        'SELECT id, traffic_bytes_up AS up, traffic_bytes_down AS down FROM subscriptions',
      );
      return new Map(
        rows.map(({ id, up, down }) => [Number(id), { up: Number(up), down: Number(down) }]),
      );
    },
  };
}
