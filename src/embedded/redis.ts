import { mkdirSync, realpathSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { CoreError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { requireFreePort } from '../port.ts';
import { type Supervised, supervise } from '../supervisor.ts';
import { endLeftovers, programName, type ServerMark, writePidFile } from './process.ts';
import { findOrInstall } from './program.ts';

/** Loading a spool of gigabytes from the append-only file takes its time. */
const readyMsMax = 300_000;
const pollMs = 20;

/**
 * Starts the embedded Redis: durable (each answer waits for the fsync of the append-only file),
 * never evicting, on loopback only.
 */
export async function startRedis(
  options: { dataDir: string; port: number },
  log: Logger,
  signal: AbortSignal,
): Promise<Supervised> {
  const program = await requireRedis(log, signal);
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
      // Each 200 waits for its fsync, in which it waits for a processor several times.
      isRealTime: true,
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
    // The file is mostly rows that are settled and trimmed by now. From the default of 64 MiB on it
    // would be rewritten every few seconds under load, each time by a fork that writes all keys.
    ['auto-aof-rewrite-min-size', '512mb'],
    // Rows lie in there packed; two thirds of the CPU of a rewrite went into compressing them again.
    ['rdbcompression', 'no'],
    // A crash may leave half a command at the end of the file. It was never acknowledged.
    ['aof-load-truncated', 'yes'],
    ['save', ''],
    // Idempotency keys of half an hour lie in one hash: to free it in place would stop everything.
    ['lazyfree-lazy-expire', 'yes'],
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
async function requireRedis(log: Logger, signal: AbortSignal): Promise<string> {
  const found = await findOrInstall('redis-server', log, signal);
  if ('path' in found) return found.path;
  throw new CoreError(
    'EMBEDDED_SERVER_FAILED',
    `redis-server is not on the PATH and could not be installed. Get it (${found.remedy}), or set REDIS_URL to a running Redis`,
    found.cause === undefined ? {} : { cause: found.cause },
  );
}
