import path from 'node:path';
import type { Config } from '../config.ts';
import { requireChdb } from '../embedded/clickhouse/chdb-binary.ts';
import { claimDataDir, dataDirFault } from '../embedded/data-dir.ts';
import { needsEmbedded, startEmbedded } from '../embedded/start.ts';
import { CoreError } from '../errors.ts';
import { writeInstanceFile } from '../instance-file.ts';
import { Lifecycle, untilSignalled } from '../lifecycle.ts';
import type { Logger } from '../log.ts';
import { roleFlags } from '../processes/node-flags.ts';
import { requireFreePort } from '../processes/port.ts';
import { maskPassword, requireStores } from '../processes/reachable.ts';
import {
  niceness,
  type ProcessSpec,
  type Supervised,
  startTogether,
  supervise,
} from '../processes/supervisor.ts';
import { projectRoot } from '../root.ts';
import { analystUrl, makeSecrets, type Secrets, withSecrets } from '../secrets.ts';
import { classifyFailure } from '../stores/failures.ts';
import { readInstance } from '../stores/instance.ts';
import { createPool } from '../stores/postgres.ts';
import { printable } from '../text.ts';

// app.ts is loaded where it is needed: it brings the HTTP server and the workers, and `up` can start
// its servers while that takes its time.

const program = path.join(projectRoot, 'dist', 'src', 'bin', 'core.js');
/** Part of the stop deadline that Core's own processes get; the embedded servers get the rest. */
const childShare = 0.6;
/** After a crash the former Core's processes may need a moment to let go of the port. */
const portPatienceMs = 4_000;
const childReadyMsMax = 60_000;

/**
 * Everything in one: the embedded servers for which no URL is set, the migrations, the HTTP
 * processes and a worker, all supervised, until a signal. `print` is called once all is ready.
 * @returns the exit code. A failure at the start is one line on stderr; nothing is left running.
 */
export async function up(
  given: Config,
  log: Logger,
  print: (ready: Ready, text: string) => void,
): Promise<number> {
  const startedAtMs = performance.now();
  return untilStopped(given, log, async (lifecycle, stopping, remainingMs) => {
    if (given.embedded.clickhouse) requireChdb();
    let patienceMs = portPatienceMs;
    let config = given;
    let secrets: Secrets | undefined;
    if (needsEmbedded(given)) {
      const { dataDir } = given.embedded;
      const claim = claimDataDir(dataDir);
      lifecycle.use('data directory', () => claim.release());
      if (!claim.afterCrash) patienceMs = 0;
      secrets = makeSecrets(dataDir);
      config = withSecrets(given, secrets);
    }
    await requireFreePorts(config, patienceMs);
    const loading = import('./migrate.ts');
    if (secrets !== undefined) {
      const servers = await startEmbedded(config, secrets, log, stopping).catch((thrown) => {
        throw dataDirFault(config.embedded.dataDir, thrown);
      });
      lifecycle.use('embedded servers', () => stopAll(servers, remainingMs()));
    }
    const { migrate } = await loading;
    await unlessAborted(stopping, requireStores(config));
    await unlessAborted(stopping, migrate(config, log));
    if (config.embedded.postgres) await recordInstance(config);
    const specs = [...apiSpecs(config), childSpec('worker', 'work', config)];
    const children = await startAll(specs, log, stopping);
    lifecycle.use('processes', () => stopAll(children, childStopMs(config, remainingMs())));
    const ready = readyOf(config, secrets, performance.now() - startedAtMs);
    print(ready, table(config, ready));
  });
}

/** Commands that are run with this data directory then know the database that belongs to it. */
async function recordInstance({ stores, embedded }: Config): Promise<void> {
  const pool = createPool(stores.postgresUrl, { max: 1 });
  try {
    writeInstanceFile(embedded.dataDir, await readInstance(pool));
  } catch (thrown) {
    throw dataDirFault(embedded.dataDir, thrown);
  } finally {
    await pool.end();
  }
}

/**
 * HTTP only, from `config.http.processes` processes on one port, supervised, until a signal.
 * @returns the exit code, as `up`.
 */
export async function serveProcesses(config: Config, log: Logger): Promise<number> {
  return untilStopped(config, log, async (lifecycle, stopping, remainingMs) => {
    await requireFreePorts(config, portPatienceMs);
    const children = await startAll(apiSpecs(config), log, stopping);
    lifecycle.use('processes', () => stopAll(children, remainingMs()));
    log.info({ processes: children.length, port: config.http.port }, 'core serves');
  });
}

/** HTTP only, in this one process, until a signal or until the parent is gone. Returns the exit code. */
export async function runServe(config: Config, log: Logger): Promise<number> {
  return runRole(config, log, async () => {
    // A child shares the ports with its siblings; the parent has looked whether they are free.
    if (process.send === undefined) await requireFreePorts(config, portPatienceMs);
    const { startApi } = await import('./api.ts');
    return startApi(config, log);
  });
}

/** @throws CoreError PORT_TAKEN if another program listens on one of the HTTP ports. */
async function requireFreePorts({ http, admin }: Config, patienceMs: number): Promise<void> {
  await requireFreePort(http.host, http.port, 'CORE_PORT', patienceMs);
  await requireFreePort(admin.host, admin.port, 'CORE_ADMIN_PORT', patienceMs);
}

/** The worker only, in this one process, until a signal or until the parent is gone. */
export async function runWork(config: Config, log: Logger): Promise<number> {
  return runRole(config, log, async () => {
    const { startWorker } = await import('./worker.ts');
    return startWorker(config, log);
  });
}

/**
 * Runs `start`, waits for a signal, and closes what start registered, in reverse order and within
 * the stop deadline. A signal during the start aborts it.
 */
async function untilStopped(
  config: Config,
  log: Logger,
  start: (lifecycle: Lifecycle, stopping: AbortSignal, remainingMs: () => number) => Promise<void>,
): Promise<number> {
  const lifecycle = new Lifecycle();
  const stopping = new AbortController();
  let stopAtMs: number | undefined;
  const remainingMs = (): number => {
    stopAtMs ??= performance.now() + config.stopSecondsMax * 1_000;
    return Math.max(0, stopAtMs - performance.now());
  };
  const signalled = untilSignalled().then((signal) => {
    remainingMs();
    stopping.abort();
    return signal;
  });
  let code = 0;
  try {
    await start(lifecycle, stopping.signal, remainingMs);
    log.info({ signal: await signalled }, 'core is stopping');
  } catch (thrown) {
    if (!stopping.signal.aborted) {
      reportFailure(thrown, log);
      code = 1;
    }
  }
  try {
    await lifecycle.close();
  } catch (err) {
    log.error({ err }, 'not everything stopped cleanly');
    code = 1;
  }
  return code;
}

/** One role in this process; as a child it talks to the supervisor over IPC. */
async function runRole(
  config: Config,
  log: Logger,
  start: () => Promise<{ close(): Promise<void> }>,
): Promise<number> {
  const stopped = Promise.race([untilSignalled(), untilOrphaned()]);
  try {
    await requireStores(config);
    const running = await start();
    tellParent({ ready: true });
    await stopped;
    return await closeInTime(running, config.stopSecondsMax * 1_000, log);
  } catch (thrown) {
    if (process.send === undefined) reportFailure(thrown, log);
    else {
      logFailure(thrown, log);
      // The parent puts it into its one line.
      tellParent({ failed: { code: classifyFailure(thrown).code, message: lineOf(thrown) } });
    }
    return 1;
  } finally {
    // An open channel would keep this process alive.
    if (process.connected) process.disconnect();
  }
}

/** Stops waiting when the signal aborts: a store that hangs must not hold up a stop. */
async function unlessAborted(signal: AbortSignal, work: Promise<void>): Promise<void> {
  // Given up, it still fails later, when its store is taken away; nobody needs to hear of that.
  work.catch(() => undefined);
  let abort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
  });
  try {
    signal.throwIfAborted();
    await Promise.race([work, aborted]);
  } finally {
    if (abort !== undefined) signal.removeEventListener('abort', abort);
  }
}

function untilOrphaned(): Promise<'orphaned'> {
  return new Promise((resolve) => {
    process.once('disconnect', () => resolve('orphaned'));
  });
}

function tellParent(message: object): void {
  // Where the parent has gone, the disconnect event says so.
  process.send?.(message, undefined, {}, () => undefined);
}

async function closeInTime(
  running: { close(): Promise<void> },
  msMax: number,
  log: Logger,
): Promise<number> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<number>((resolve) => {
    timer = setTimeout(() => {
      log.error(`did not stop within ${msMax} ms; what is in flight is cut off`);
      resolve(1);
    }, msMax);
  });
  const closed = running.close().then(
    () => 0,
    (err: unknown) => {
      log.error({ err }, 'not everything closed cleanly');
      return 1;
    },
  );
  const code = await Promise.race([closed, late]);
  clearTimeout(timer);
  return code;
}

function apiSpecs(config: Config): ProcessSpec[] {
  const count = config.http.processes;
  return Array.from({ length: count }, (_, index) =>
    childSpec(count === 1 ? 'api' : `api ${index + 1}`, 'serve', config),
  );
}

function childSpec(name: string, role: 'serve' | 'work', config: Config): ProcessSpec {
  const stopSeconds = childStopSeconds(config);
  return {
    name,
    // The settings are inherited, but for these two: `env` sets them and becomes the program.
    command: 'env',
    args: [
      'CORE_API_PROCESSES=1',
      `CORE_STOP_SECONDS_MAX=${stopSeconds}`,
      process.execPath,
      ...roleFlags[role],
      program,
      role,
    ],
    ...(role === 'work' ? { niceness: niceness.worker } : {}),
    ready: 'ipc',
    readyMsMax: childReadyMsMax,
    stopSignal: 'SIGTERM',
    stopMsMax: config.stopSecondsMax * 1_000,
    failureCode: 'PROCESS_FAILED',
  };
}

function childStopSeconds(config: Config): number {
  return Math.max(1, Math.floor(config.stopSecondsMax * childShare));
}

/** A little over what the child allows itself, so that it is killed only when it hangs. */
function childStopMs(config: Config, remainingMs: number): number {
  return Math.min(remainingMs, childStopSeconds(config) * 1_000 + 300);
}

function startAll(
  specs: readonly ProcessSpec[],
  log: Logger,
  signal: AbortSignal,
): Promise<Supervised[]> {
  return startTogether(
    specs.map((spec) => (either) => supervise(spec, log, either)),
    signal,
  );
}

async function stopAll(running: readonly Supervised[], msMax: number): Promise<void> {
  await Promise.all(running.map((one) => one.stop(msMax)));
}

/** One line for whoever started Core; the causes go to the log. */
function reportFailure(thrown: unknown, log: Logger): void {
  logFailure(thrown, log);
  process.stderr.write(`core: ${printable(lineOf(thrown))}\n`);
}

/** Of what nobody foresaw, "Internal error" would say nothing. */
function lineOf(thrown: unknown): string {
  const { message } =
    isUnforeseen(thrown) && thrown instanceof Error ? thrown : classifyFailure(thrown);
  return message.replaceAll('\n', ' ');
}

/** The causes of what Core knows are of use to few; of anything else there is nothing but the cause. */
function logFailure(thrown: unknown, log: Logger): void {
  const level = isUnforeseen(thrown) ? 'fatal' : 'debug';
  log[level]({ err: thrown }, 'core could not start');
}

function isUnforeseen(thrown: unknown): boolean {
  return !(thrown instanceof CoreError) || thrown.code === 'INTERNAL';
}

/** Where everything listens, once it does. Passwords in URLs are masked. */
export interface Ready {
  core: string;
  /** Metrics, and health in full. */
  admin: string;
  apiProcesses: number;
  clickhouse: string;
  postgres: string;
  redis: string;
  /** Absent where every store is external. */
  dataDir?: string;
  seconds: number;
}

function readyOf(config: Config, secrets: Secrets | undefined, tookMs: number): Ready {
  const { http, admin, stores, embedded } = config;
  return {
    core: httpUrl(http),
    admin: httpUrl(admin),
    apiProcesses: http.processes,
    // What a tool should use, rather than Core's own user.
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
function table(config: Config, ready: Ready): string {
  const { embedded } = config;
  const where = (own: boolean): string => (own ? 'embedded' : 'external');
  const rows: [string, string, string][] = [
    ['Core', ready.core, processesText(ready.apiProcesses)],
    ['Admin', ready.admin, '/metrics, /readyz, /healthz'],
    ['ClickHouse HTTP', ready.clickhouse, where(embedded.clickhouse)],
    ['Postgres', ready.postgres, where(embedded.postgres)],
    ['Redis', ready.redis, where(embedded.redis)],
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
