import type { Config } from '../config.ts';
import { needsEmbedded } from '../embedded/start.ts';
import { maskPassword } from '../processes/reachable.ts';
import { analystUrl, type Secrets } from '../secrets.ts';

/** Where everything listens, once it does. Passwords in URLs are masked. */
export interface Ready {
  core: string;
  /** Metrics, and health in full. */
  admin: string;
  apiProcesses: number;
  clickhouse: string;
  postgres: string;
  redis: string;
  /** Absent if every store is external. */
  dataDir?: string;
  seconds: number;
}

export function readyOf(config: Config, secrets: Secrets | undefined, tookMs: number): Ready {
  const { http, admin, stores, embedded } = config;
  return {
    core: httpUrl(http),
    admin: httpUrl(admin),
    apiProcesses: http.processes,
    // The URL for tools, with the user that only reads.
    clickhouse: maskPassword(analystUrl(config, secrets) ?? stores.clickhouseUrl),
    postgres: maskPassword(stores.postgresUrl),
    redis: maskPassword(stores.redisUrl),
    ...(needsEmbedded(config) ? { dataDir: embedded.dataDir } : {}),
    seconds: Math.round(tookMs / 100) / 10,
  };
}

function httpUrl({ host, port }: { host: string; port: number }): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** The table that `core up` prints; its last line starts with `core ready`. */
export function readyTable(config: Config, ready: Ready): string {
  const { embedded } = config;
  const origin = (isEmbedded: boolean): string => (isEmbedded ? 'embedded' : 'external');
  const rows: [string, string, string][] = [
    ['Core', ready.core, processesText(ready.apiProcesses)],
    ['Admin', ready.admin, '/metrics, /readyz, /healthz'],
    ['ClickHouse HTTP', ready.clickhouse, origin(embedded.clickhouse)],
    ['Postgres', ready.postgres, origin(embedded.postgres)],
    ['Redis', ready.redis, origin(embedded.redis)],
  ];
  if (ready.dataDir !== undefined) rows.push(['Data directory', ready.dataDir, '']);
  const width = (column: 0 | 1): number => Math.max(...rows.map((row) => row[column].length));
  const [first, second] = [width(0), width(1)];
  const lines = rows.map(([name, value, note]) =>
    `${name.padEnd(first)}  ${value.padEnd(second)}  ${note}`.trimEnd(),
  );
  return `${lines.join('\n')}\ncore ready in ${ready.seconds.toFixed(1)} s\n`;
}

function processesText(count: number): string {
  return count === 1 ? '1 process' : `${count} processes`;
}
