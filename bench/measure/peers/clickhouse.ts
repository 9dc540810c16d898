import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { startClickHouse } from '../../../src/embedded/clickhouse/start.ts';
import { createLogger } from '../../../src/log.ts';
import { makeSecrets, withPassword } from '../../../src/secrets.ts';
import { createClickHouse } from '../../../src/stores/clickhouse.ts';
import { fixedPorts } from '../../../test/support/free-port.ts';
import { jsonEachRowFormat } from './formats.ts';
import type { Peer } from './peer.ts';
import { createFolder } from './program.ts';

const insert = 'INSERT INTO peer_usage FORMAT JSONEachRow';

export const clickhouse: Peer = {
  name: 'ClickHouse, JSONEachRow',
  caveat:
    'no keys; checks types, not values; no fsync before the answer (the default); stores a repeated ' +
    'body twice; no counters. Plain inserts, one part each: the embedded front sets async_insert = 0 ' +
    'on every insert, so asynchronous inserts cannot be measured through it.',
  missing: () => undefined,
  async open(lifecycle, { signal }) {
    const dataDir = createFolder(lifecycle);
    mkdirSync(path.join(dataDir, 'logs'));
    const [port] = await fixedPorts(1);
    const log = createLogger('error');
    const { clickhouse: password } = makeSecrets(dataDir);
    const server = await startClickHouse({ dataDir, port: port as number }, log, signal);
    lifecycle.use('clickhouse', () => server.stop());
    const url = `http://127.0.0.1:${port}`;
    const client = createClickHouse(withPassword(`http://core@127.0.0.1:${port}/core`, password), {
      requestTimeoutMs: 300_000,
    });
    lifecycle.use('clickhouse client', () => client.close());
    await client.command({
      query: `CREATE TABLE peer_usage (user_id UInt64, subscription_id UInt64,
                node_protocol_id UInt64, bytes_up UInt64, bytes_down UInt64,
                recorded_at DateTime('UTC'))
              ENGINE = MergeTree PARTITION BY toYYYYMM(recorded_at)
              ORDER BY (subscription_id, recorded_at)`,
    });
    return {
      target: {
        url,
        path: `/?database=core&query=${encodeURIComponent(insert)}`,
        headers: {
          'content-type': 'application/x-ndjson',
          'x-clickhouse-user': 'core',
          'x-clickhouse-key': password,
        },
      },
      format: jsonEachRowFormat,
      overwrittenShareMax: 0,
      async countStored() {
        const query = 'SELECT toFloat64(count()) AS rows FROM peer_usage';
        const result = await client.query({ query, format: 'JSONEachRow' });
        const [found] = await result.json<{ rows: number }>();
        return found?.rows ?? 0;
      },
    };
  },
};
