import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, realpathSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { CoreError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { requireFreePort } from '../port.ts';
import { type Supervised, supervise } from '../supervisor.ts';
import { endLeftovers, programName, type ServerMark, writePidFile } from './process.ts';

const run = promisify(execFile);

/** Where packages put servers that a plain user's PATH leaves out. */
const usualFolders = ['/usr/bin', '/usr/local/bin', '/usr/sbin', '/opt/homebrew/bin'];
/** Loading a spool of gigabytes from the append-only file takes its time. */
const readyMsMax = 300_000;
const pollMs = 20;
const aptMsMax = 300_000;

/**
 * Starts the embedded Redis: durable (each answer waits for the fsync of the append-only file),
 * never evicting, on loopback only.
 */
export async function startRedis(
  options: { dataDir: string; port: number },
  log: Logger,
  signal: AbortSignal,
): Promise<Supervised> {
  const program = await findOrInstall(log, signal);
  const dir = path.join(realpathSync(options.dataDir), 'redis');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const mark: ServerMark = {
    name: 'redis',
    dir,
    pidFile: path.join(options.dataDir, 'redis.pid'),
    roleOf: (argv) => (programName(argv) === 'redis-server' ? 'main' : 'stranger'),
    stopSignal: 'SIGTERM',
  };
  await endLeftovers(mark, log);
  await requireFreePort('127.0.0.1', options.port, 'CORE_REDIS_PORT');
  return supervise(
    {
      name: 'redis',
      command: program,
      args: redisArguments(dir, options.port),
      cwd: dir,
      logFile: path.join(options.dataDir, 'logs', 'redis.log'),
      ready: (waiting) => untilPong(options.port, waiting),
      readyMsMax,
      stopSignal: 'SIGTERM',
      stopMsMax: 5_000,
      failureCode: 'EMBEDDED_SERVER_FAILED',
      onSpawn: (pid) => writePidFile(mark, pid),
    },
    log,
    signal,
  );
}

function redisArguments(dir: string, port: number): string[] {
  const settings: [string, string][] = [
    ['bind', '127.0.0.1'],
    ['port', String(port)],
    ['protected-mode', 'yes'],
    ['daemonize', 'no'],
    ['dir', dir],
    ['appendonly', 'yes'],
    ['appendfsync', 'always'],
    ['no-appendfsync-on-rewrite', 'no'],
    // A crash may leave half a command at the end of the file. It was never acknowledged.
    ['aof-load-truncated', 'yes'],
    ['save', ''],
    ['maxmemory-policy', 'noeviction'],
  ];
  return settings.flatMap(([name, value]) => [`--${name}`, value]);
}

/** Resolves once Redis answers PONG; while it loads its file it answers LOADING. */
async function untilPong(port: number, waiting: AbortSignal): Promise<void> {
  while (!waiting.aborted) {
    if ((await ping(port)) === '+PONG') return;
    await delay(pollMs);
  }
}

function ping(port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: '127.0.0.1', port, timeout: 1_000 });
    const finish = (answer: string | undefined): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => socket.write('PING\r\n'));
    socket.once('data', (chunk) => finish(chunk.toString('latin1').trim()));
    socket.once('error', () => finish(undefined));
    socket.once('timeout', () => finish(undefined));
    socket.once('close', () => finish(undefined));
  });
}

/** Path of redis-server, which is installed on Debian and Ubuntu where it is missing. */
async function findOrInstall(log: Logger, signal: AbortSignal): Promise<string> {
  const found = await findProgram('redis-server');
  if (found !== undefined) return found;
  const apt = await findProgram('apt-get');
  if (apt !== undefined && process.getuid?.() === 0) {
    await installWithApt(apt, log, signal);
    const installed = await findProgram('redis-server');
    if (installed !== undefined) return installed;
  }
  throw missing(apt === undefined ? 'install Redis 6 or later' : 'apt-get install redis-server');
}

function missing(remedy: string, cause?: unknown): CoreError {
  return new CoreError(
    'EMBEDDED_SERVER_FAILED',
    `redis-server is not on the PATH and could not be installed. Get it (${remedy}), or set REDIS_URL to a running Redis`,
    cause === undefined ? {} : { cause },
  );
}

/** Full path of a program, by the shell's own search of the PATH and then the usual folders. */
async function findProgram(name: string): Promise<string | undefined> {
  const search = `PATH="$PATH:${usualFolders.join(':')}"; command -v "$1"`;
  try {
    const { stdout } = await run('/bin/sh', ['-c', search, 'sh', name]);
    return stdout.trim() || undefined;
  } catch {
    return undefined;
  }
}

async function installWithApt(apt: string, log: Logger, signal: AbortSignal): Promise<void> {
  log.info('redis-server is missing; installing it with apt-get');
  // The environment is inherited; `env` adds to it.
  const quietly = ['DEBIAN_FRONTEND=noninteractive', apt];
  const options = { signal, timeout: aptMsMax, maxBuffer: 16_777_216 };
  try {
    // An update may fail for one of many sources while the one that matters is fine.
    await run('env', [...quietly, 'update'], options).catch((cause: unknown) =>
      log.warn({ err: cause }, 'apt-get update failed'),
    );
    await run(
      'env',
      [...quietly, 'install', '-y', '--no-install-recommends', 'redis-server'],
      options,
    );
  } catch (cause) {
    throw missing('apt-get install redis-server', cause);
  }
  await stopDistroService(log);
}

/**
 * The package also starts a Redis of its own on 6379. The program was not there before, so that
 * service is of our making and nobody uses it yet.
 */
async function stopDistroService(log: Logger): Promise<void> {
  try {
    if (existsSync('/run/systemd/system')) {
      await run('systemctl', ['disable', '--now', 'redis-server']);
    } else if (existsSync('/etc/init.d/redis-server')) {
      await run('/etc/init.d/redis-server', ['stop']);
    }
  } catch (cause) {
    log.warn({ err: cause }, 'the redis-server service that apt started could not be stopped');
  }
}
