import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Redis } from 'ioredis';
import type pg from 'pg';
import { migrate } from '../../src/app/migrate.ts';
import { type Config, readConfig } from '../../src/config.ts';
import { startEmbedded } from '../../src/embedded/start.ts';
import { settingsSchema } from '../../src/environment.ts';
import type { Lifecycle } from '../../src/lifecycle.ts';
import { createLogger, type Logger } from '../../src/log.ts';
import { roleFlags } from '../../src/processes/node-flags.ts';
import { niceness } from '../../src/processes/priority.ts';
import { type Supervised, supervise } from '../../src/processes/supervisor.ts';
import { projectRoot } from '../../src/root.ts';
import { makeSecrets, withSecrets } from '../../src/secrets.ts';
import { type ClickHouseClient, createClickHouse } from '../../src/stores/clickhouse.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { connectRedis, createRedis } from '../../src/stores/redis.ts';
import { fixedPorts } from '../../test/support/free-port.ts';
import type { ProcessRoots } from './processes.ts';

/** A whole Core with real stores in a temporary folder, and with every protection on. */
export interface BenchCore {
  config: Config;
  url: string;
  /** The bench's own clients. */
  pool: pg.Pool;
  redis: Redis;
  clickhouse: ClickHouseClient;
  /** Process ids of api, worker and stores as they are now. Each may have children. */
  roots: () => ProcessRoots;
  startWorker(): Promise<void>;
  /** Ends the worker cleanly: it settles what it has begun. */
  stopWorker(): Promise<void>;
  /** Ends all api processes but the first. They do not come back. */
  keepOneApi(): Promise<void>;
}

const coreProgram = path.join(projectRoot, 'dist', 'src', 'bin', 'core.js');
const readyMsMax = 60_000;
const stopMsMax = 15_000;

/**
 * Starts the three stores, migrates them, and starts the api and (unless `worker` is false) the
 * worker. `settings` are Core's settings by their names in .env.example. The environment sets nothing,
 * so that a DATABASE_URL there is not written to. `lifecycle` stops everything and removes the folder.
 */
export async function startBenchCore(
  lifecycle: Lifecycle,
  options: {
    settings: Record<string, string>;
    worker: boolean;
    signal: AbortSignal;
    /** Folder for the V8 CPU profiles of api and worker. Without it none is taken. */
    profileDir?: string | undefined;
  },
): Promise<BenchCore> {
  const dataDir = mkdtempSync(path.join(os.tmpdir(), 'core-bench-'));
  lifecycle.use('bench folder', () => rmSync(dataDir, { recursive: true, force: true }));
  mkdirSync(path.join(dataDir, 'logs'));
  const [http, admin, postgres, redisPort, clickhousePort] = await fixedPorts(5);
  const environment: Record<string, string> = {
    CORE_LOG_LEVEL: 'warn',
    // One a core, as README.md recommends.
    CORE_API_PROCESSES: String(os.availableParallelism()),
    ...options.settings,
    CORE_DATA_DIR: dataDir,
    CORE_PORT: String(http),
    CORE_ADMIN_PORT: String(admin),
    CORE_POSTGRES_PORT: String(postgres),
    CORE_REDIS_PORT: String(redisPort),
    CORE_CLICKHOUSE_PORT: String(clickhousePort),
  };
  const secrets = makeSecrets(dataDir);
  const config = withSecrets(readConfig(environment), secrets);
  const log = createLogger('error');
  const running = new Map<string, Supervised>();
  const keep = (name: string, supervised: Supervised): void => {
    running.set(name, supervised);
    lifecycle.use(name, () => supervised.stop());
  };
  const { signal } = options;
  for (const server of await startEmbedded(config, secrets, log, signal)) keep(server.name, server);
  await migrate(config, log);
  const start = (role: 'serve' | 'work'): Promise<Supervised> =>
    startRole(role, { environment, dataDir, log, signal, profileDir: options.profileDir });
  for (let count = 1; count <= config.http.processes; count += 1) {
    keep(count === 1 ? 'api' : `api ${count}`, await start('serve'));
  }
  const worker = createWorkerSwitch(lifecycle, running, () => start('work'));
  if (options.worker) await worker.start();

  return {
    config,
    url: `http://127.0.0.1:${http}`,
    ...(await openClients(lifecycle, config)),
    roots: () => readRoots(running),
    startWorker: worker.start,
    stopWorker: worker.stop,
    async keepOneApi() {
      for (const name of running.keys()) {
        if (!name.startsWith('api ')) continue;
        await running.get(name)?.stop();
        running.delete(name);
      }
    },
  };
}

async function openClients(lifecycle: Lifecycle, { stores }: Config) {
  const pool = createPool(stores.postgresUrl, { max: 16 });
  lifecycle.use('bench postgres client', () => pool.end());
  const redis = createRedis(stores.redisUrl, { commandTimeoutMs: 60_000 });
  lifecycle.use('bench redis client', () => redis.disconnect());
  await connectRedis(redis);
  const clickhouse = createClickHouse(stores.clickhouseUrl, { requestTimeoutMs: 600_000 });
  lifecycle.use('bench clickhouse client', () => clickhouse.close());
  return { pool, redis, clickhouse };
}

function createWorkerSwitch(
  lifecycle: Lifecycle,
  running: Map<string, Supervised>,
  start: () => Promise<Supervised>,
) {
  lifecycle.use('worker', async () => running.get('worker')?.stop());
  return {
    async start(): Promise<void> {
      if (!running.has('worker')) running.set('worker', await start());
    },
    async stop(): Promise<void> {
      await running.get('worker')?.stop();
      running.delete('worker');
    },
  };
}

function startRole(
  role: 'serve' | 'work',
  options: {
    environment: Record<string, string>;
    dataDir: string;
    log: Logger;
    signal: AbortSignal;
    profileDir: string | undefined;
  },
): Promise<Supervised> {
  const { environment, dataDir, log, signal, profileDir } = options;
  const profile =
    profileDir === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${path.resolve(profileDir)}`];
  const own = { ...environment, CORE_API_PROCESSES: '1' };
  const settings = Object.entries(own).map(([key, value]) => `${key}=${value}`);
  // Core inherits no setting: a DATABASE_URL of the caller must not be written to.
  const unset = Object.keys(settingsSchema.shape).flatMap((name) => ['-u', name]);
  return supervise(
    {
      name: role === 'serve' ? 'api' : 'worker',
      command: 'env',
      args: [
        ...unset,
        ...settings,
        process.execPath,
        ...roleFlags[role],
        ...profile,
        coreProgram,
        role,
      ],
      ...(role === 'work' ? { niceness: niceness.worker } : {}),
      logFile: path.join(dataDir, 'logs', `${role}.log`),
      ready: 'ipc',
      readyMsMax,
      stopSignal: 'SIGTERM',
      stopMsMax,
      failureCode: 'PROCESS_FAILED',
    },
    log,
    signal,
  );
}

function readRoots(running: ReadonlyMap<string, Supervised>): ProcessRoots {
  const roots: ProcessRoots = {};
  for (const [name, supervised] of running) {
    const pid = supervised.pid();
    if (pid !== undefined) roots[name] = pid;
  }
  return roots;
}
