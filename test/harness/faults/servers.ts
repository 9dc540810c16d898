import { appendFileSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import { migrate } from '../../../src/app/migrate.ts';
import { type Config, readConfig } from '../../../src/config.ts';
import { startClickHouse } from '../../../src/embedded/clickhouse/start.ts';
import { startPostgres } from '../../../src/embedded/postgres/start.ts';
import { startRedis } from '../../../src/embedded/redis/start.ts';
import type { Lifecycle } from '../../../src/lifecycle.ts';
import type { Logger } from '../../../src/log.ts';
import { roleFlags } from '../../../src/processes/node-flags.ts';
import { type Supervised, supervise } from '../../../src/processes/supervisor.ts';
import { projectRoot } from '../../../src/root.ts';
import { makeSecrets, withSecrets } from '../../../src/secrets.ts';
import { createClickHouse } from '../../../src/stores/clickhouse.ts';
import { createRedis } from '../../../src/stores/redis.ts';
import { fixedPorts } from '../../support/free-port.ts';
import { type CuttingProxy, startCuttingProxy } from './cutting-proxy.ts';
import { type FailpointServer, startFailpointServer } from './failpoint-server.ts';
import { type Killable, startKillable, type Victim } from './killable.ts';
import { poisonUserId } from './posts.ts';
import type { Removal } from './removals.ts';

/** A whole Core with stores of its own. The harness can kill every process of it. */
export interface Servers {
  config: Config;
  dataDir: string;
  url: string;
  failpoints: FailpointServer;
  processes: ReadonlyMap<Victim, Killable>;
  /** Deaths that the harness did not cause, one line each. */
  deaths: readonly string[];
  /** Settings of api and worker. A change counts from their next start on. */
  environment: Record<string, string>;
  /** In front of the api and of each store. Empty unless they were asked for. */
  proxies: ReadonlyMap<string, CuttingProxy>;
}

const coreProgram = path.join(projectRoot, 'dist', 'src', 'bin', 'core.js');
const removalProgram = path.join(projectRoot, 'dist', 'test', 'harness', 'faults', 'core.js');
/** Short, so that a round is short. */
const settleMsMin = 250;
const loadIntervalMs = 150;
const lateIntervalMs = 300;

/**
 * Starts the stores, migrates them, and starts an api and a worker that ask the harness at every
 * failpoint. With a removal both run from core.ts of this folder, which takes that protection away.
 */
export async function startServers(
  lifecycle: Lifecycle,
  asked: {
    removal: Removal | undefined;
    hasProxies: boolean;
    workers: 1 | 2;
    settings: Readonly<Record<string, string>>;
  },
): Promise<Servers> {
  const { removal, hasProxies, workers } = asked;
  const dataDir = mkdtempSync(path.join(os.tmpdir(), 'core-faults-'));
  mkdirSync(path.join(dataDir, 'logs'));
  const ports = await fixedPorts(10);
  const [failpoint, ...proxyPorts] = ports.slice(5);
  const environment = { ...settingsOf({ dataDir, ports, removal }), ...asked.settings };
  const passwords = makeSecrets(dataDir);
  const config = withSecrets(readConfig(environment), passwords);
  const deaths: string[] = [];
  const processes = new Map<Victim, Killable>();
  const log = createHarnessLog(path.join(dataDir, 'logs', 'harness.log'), { deaths, processes });
  const failpoints = await startFailpointServer(failpoint as number);
  lifecycle.use('failpoint server', () => failpoints.close());
  const keep: Keep = async (name, start, startingPid) => {
    const killable = await startKillable(name, start, startingPid);
    lifecycle.use(name, () => killable.stop());
    processes.set(name, killable);
  };
  await startStores(keep, { config, dataDir, passwords, removal, log });
  await migrate(config, log);
  await refusePoison(config.stores.clickhouseUrl);
  const proxies = await startProxies(config, hasProxies ? proxyPorts : [], lifecycle);
  Object.assign(environment, proxiedUrls(config, proxies));
  const roleOptions = { environment, removal, dataDir, log };
  await startRoles(keep, roleOptions);
  if (workers === 2) await startSecondWorker(lifecycle, roleOptions);
  const url = `http://127.0.0.1:${proxies.get('api')?.port ?? config.http.port}`;
  return { config, dataDir, url, failpoints, processes, deaths, environment, proxies };
}

async function startStores(
  keep: Keep,
  of: {
    config: Config;
    dataDir: string;
    passwords: ReturnType<typeof makeSecrets>;
    removal: Removal | undefined;
    log: Logger;
  },
): Promise<void> {
  const { config, dataDir, passwords, removal, log } = of;
  const { postgresPort, redisPort: port, clickhousePort } = config.embedded;
  const { redis: password } = passwords;
  const pidFile = (name: string) => (): number | undefined => readPidFile(dataDir, name);
  const starts = await Promise.allSettled([
    keep(
      'postgres',
      (signal) => startPostgres({ dataDir, port: postgresPort, passwords }, log, signal),
      pidFile('postgres'),
    ),
    keep(
      'redis',
      async (signal) => {
        const started = await startRedis({ dataDir, port, password }, log, signal);
        if (removal === 'aof') await stopAppending(config.stores.redisUrl);
        return started;
      },
      pidFile('redis'),
    ),
    keep(
      'clickhouse',
      (signal) => startClickHouse({ dataDir, port: clickhousePort }, log, signal),
      pidFile('clickhouse'),
    ),
  ]);
  // All three starts have ended here, even if one failed. If a start were still going on, the lifecycle
  // might close before the store registers with it, and nothing would stop the store.
  for (const started of starts) {
    if (started.status === 'rejected') throw started.reason;
  }
}

/** Process id of an embedded server; undefined if the harness has not started it yet. */
function readPidFile(dataDir: string, name: string): number | undefined {
  try {
    return Number(readFileSync(path.join(dataDir, `${name}.pid`), 'utf8').trim()) || undefined;
  } catch {
    // There is no such file yet.
    return undefined;
  }
}

/** `ports`: the api's, the operators' listener's, the three stores' and the failpoint server's. */
function settingsOf(of: {
  dataDir: string;
  ports: readonly number[];
  removal: Removal | undefined;
}): Record<string, string> {
  const [http, admin, postgres, redis, clickhouse, failpoint] = of.ports;
  return {
    CORE_DATA_DIR: of.dataDir,
    CORE_PORT: String(http),
    CORE_ADMIN_PORT: String(admin),
    CORE_POSTGRES_PORT: String(postgres),
    CORE_REDIS_PORT: String(redis),
    CORE_CLICKHOUSE_PORT: String(clickhouse),
    CORE_LOAD_INTERVAL_MS: String(loadIntervalMs),
    CORE_LATE_INTERVAL_MS: String(lateIntervalMs),
    // ClickHouse's first refusal counts, so that a round with poisoned rows takes no longer than others.
    CORE_POISON_ATTEMPTS: '1',
    // A round has little load. Without this setting every batch would be a single segment.
    CORE_SETTLE_MS_MIN: String(settleMsMin),
    CORE_LOG_LEVEL: 'warn',
    CORE_FAILPOINT_URL: `http://127.0.0.1:${failpoint}`,
    ...(of.removal === 'aof' ? { CORE_REDIS_REQUIRE_AOF: 'false' } : {}),
  };
}

/** Starts a process that the harness may kill. The lifecycle stops it. */
type Keep = (
  name: Victim,
  start: (signal: AbortSignal) => Promise<Supervised>,
  startingPid: () => number | undefined,
) => Promise<void>;
type RoleOptions = Omit<Parameters<typeof startCore>[2], 'signal'>;

async function startRoles(keep: Keep, options: RoleOptions): Promise<void> {
  for (const [name, role] of [
    ['api', 'serve'],
    ['worker', 'work'],
  ] as const) {
    let startingPid: number | undefined;
    const start = (signal: AbortSignal): Promise<Supervised> =>
      startCore(name, role, { ...options, signal }, (pid) => {
        startingPid = pid;
      });
    await keep(name, start, () => startingPid);
  }
}

/**
 * Starts a second worker, which does not ask at failpoints. So a worker that asks is the first one, and the
 * harness knows its process id.
 */
async function startSecondWorker(lifecycle: Lifecycle, options: RoleOptions): Promise<void> {
  const { CORE_FAILPOINT_URL: _, ...environment } = options.environment;
  const { signal } = new AbortController();
  const quietly = { ...options, environment, signal };
  const second = await startCore('worker 2', 'work', quietly, () => undefined);
  lifecycle.use('worker 2', () => second.stop());
}

/** Makes ClickHouse refuse the rows of one user, as if an operator had changed the table. */
async function refusePoison(url: string): Promise<void> {
  const clickhouse = createClickHouse(url);
  try {
    await clickhouse.command({
      query: `ALTER TABLE usage ADD CONSTRAINT faults CHECK user_id != ${poisonUserId}`,
    });
  } finally {
    await clickhouse.close();
  }
}

/** Starts a proxy in front of the api and of each store, or none if `ports` is empty. */
async function startProxies(
  { http, embedded }: Config,
  ports: readonly number[],
  lifecycle: Lifecycle,
): Promise<Map<string, CuttingProxy>> {
  const proxies = new Map<string, CuttingProxy>();
  const targets = [
    ['api', http.port],
    ['postgres', embedded.postgresPort],
    ['redis', embedded.redisPort],
    ['clickhouse', embedded.clickhousePort],
  ] as const;
  for (const [index, port] of ports.entries()) {
    const [name, targetPort] = targets[index] ?? targets[0];
    const proxy = await startCuttingProxy(port, targetPort);
    lifecycle.use(`proxy of ${name}`, () => proxy.close());
    proxies.set(name, proxy);
  }
  return proxies;
}

/** Settings that make Core connect through the proxies. */
function proxiedUrls(
  { stores }: Config,
  proxies: ReadonlyMap<string, CuttingProxy>,
): Record<string, string> {
  const through = (name: string, given: string): string => {
    const url = new URL(given);
    url.port = String(proxies.get(name)?.port ?? url.port);
    return url.href;
  };
  if (proxies.size === 0) return {};
  return {
    DATABASE_URL: through('postgres', stores.postgresUrl),
    REDIS_URL: through('redis', stores.redisUrl),
    CLICKHOUSE_URL: through('clickhouse', stores.clickhouseUrl),
  };
}

/** From now on, a kill of Redis loses everything since its start. */
async function stopAppending(url: string): Promise<void> {
  const client = createRedis(url);
  try {
    await client.connect();
    await client.config('SET', 'appendonly', 'no');
  } finally {
    client.disconnect();
  }
}

function startCore(
  name: string,
  role: 'serve' | 'work',
  options: {
    environment: Record<string, string>;
    removal: Removal | undefined;
    dataDir: string;
    log: Logger;
    signal: AbortSignal;
  },
  onSpawn: (pid: number) => void,
): Promise<Supervised> {
  const { environment, removal, dataDir, log, signal } = options;
  const program = removal === undefined ? [coreProgram, role] : [removalProgram, role, removal];
  const settings = Object.entries(environment).map(([key, value]) => `${key}=${value}`);
  return supervise(
    {
      name,
      command: 'env',
      args: [...settings, process.execPath, ...roleFlags[role], ...program],
      logFile: path.join(dataDir, 'logs', `${name}.log`),
      ready: 'ipc',
      readyMsMax: 60_000,
      stopSignal: 'SIGTERM',
      stopMsMax: 5_000,
      failureCode: 'PROCESS_FAILED',
      onSpawn,
    },
    log,
    signal,
  );
}

/** The supervisor warns when a process dies. The death counts unless the harness killed the process. */
function createHarnessLog(
  file: string,
  { deaths, processes }: { deaths: string[]; processes: ReadonlyMap<string, Killable> },
): Logger {
  return pino(
    { level: 'warn' },
    {
      write(line: string) {
        appendFileSync(file, line);
        const warning = JSON.parse(line) as { msg?: string; process?: string; childPid?: number };
        const { msg, childPid = 0 } = warning;
        if (msg?.includes('starting it again') !== true) return;
        const isMeant =
          msg.includes('was killed by SIGKILL') &&
          processes.get(warning.process ?? '')?.wasKilled(childPid) === true;
        if (!isMeant) deaths.push(msg);
      },
    },
  );
}
