import { chmodSync, mkdirSync, realpathSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { writeDurable } from '../../durable-file.ts';
import { CoreError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { requireFreePort } from '../../processes/port.ts';
import { type Supervised, supervise } from '../../processes/supervisor.ts';
import { withoutSecrets } from '../../processes/without-secrets.ts';
import { findOrInstall } from '../find-program.ts';
import { endLeftovers, programName, type ServerMark, writePidFile } from '../leftovers.ts';

/** Redis may have to load gigabytes from the append-only file. */
const readyMsMax = 300_000;
const pollMs = 20;

/**
 * Starts the embedded Redis on loopback only, with a password. It is durable: each answer waits for the fsync
 * of the append-only file. It never evicts.
 */
export async function startRedis(
  options: { dataDir: string; port: number; password: string },
  log: Logger,
  signal: AbortSignal,
): Promise<Supervised> {
  const program = await requireRedis(log, signal);
  const dir = path.join(realpathSync(options.dataDir), 'redis');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  // Redis makes its files readable for all, and they hold keys of nodes. So the folder is closed.
  chmodSync(dir, 0o700);
  const mark: ServerMark = {
    name: 'redis',
    dir,
    pidFile: path.join(options.dataDir, 'redis.pid'),
    relationOf: (argv) => (programName(argv) === 'redis-server' ? 'main' : 'stranger'),
    stopSignal: 'SIGTERM',
  };
  await endLeftovers(mark, log);
  await requireFreePort('127.0.0.1', options.port, 'CORE_REDIS_PORT');
  const configFile = path.join(dir, 'redis.conf');
  const [command = program, ...args] = [...withoutSecrets, program, configFile];
  return supervise(
    {
      name: 'redis',
      command,
      args,
      cwd: dir,
      logFile: path.join(options.dataDir, 'logs', 'redis.log'),
      ready: (waiting) => untilPong(options.port, options.password, waiting),
      readyMsMax,
      stopSignal: 'SIGTERM',
      stopMsMax: 5_000,
      failureCode: 'EMBEDDED_SERVER_FAILED',
      // Each 200 waits for an fsync, and during the fsync Redis waits for a processor several times.
      isRealTime: true,
      // The password is in a file, since everybody on the machine can read the arguments of a program.
      prepare: async () => writeDurable(configFile, redisConfig(dir, options)),
      onSpawn: (pid) => writePidFile(mark, pid),
    },
    log,
    signal,
  );
}

/** Redis' configuration file. Each start writes it, so that nothing of a CONFIG REWRITE is left in it. */
function redisConfig(dir: string, options: { port: number; password: string }): string {
  const settings: [string, string][] = [
    ['bind', '127.0.0.1'],
    ['port', String(options.port)],
    ['requirepass', options.password],
    ['protected-mode', 'yes'],
    ['daemonize', 'no'],
    ['dir', dir],
    ['appendonly', 'yes'],
    ['appendfsync', 'always'],
    ['no-appendfsync-on-rewrite', 'no'],
    // Most rows in the file are trimmed long before a rewrite. With the default of 64 MiB, Redis would
    // rewrite the file every few seconds under load, each time in a fork that writes all keys.
    ['auto-aof-rewrite-min-size', '512mb'],
    // Usage rows are compact already. Compressing them took two thirds of the CPU of a rewrite.
    ['rdbcompression', 'no'],
    // A crash may leave half a command at the end of the file. Core never acknowledged that one.
    ['aof-load-truncated', 'yes'],
    ['save', ''],
    // An id of a post takes eight bytes in a set of at most this many, and seven times as much in a larger one.
    ['set-max-intset-entries', '4096'],
    // The idempotency keys of half an hour are one hash: freeing it in the main thread would stop everything.
    ['lazyfree-lazy-expire', 'yes'],
    ['maxmemory-policy', 'noeviction'],
  ];
  const lines = settings.map(([name, value]) => `${name} ${quoted(value)}\n`);
  return `# Core writes this file at every start.\n${lines.join('')}`;
}

/** Puts the value in double quotes. There Redis knows the escapes `\\` and `\"`. */
function quoted(value: string): string {
  return `"${value.replaceAll(/["\\]/g, '\\$&')}"`;
}

/** Resolves once Redis answers PONG. While it loads its file, it answers LOADING. */
async function untilPong(port: number, password: string, waiting: AbortSignal): Promise<void> {
  while (!waiting.aborted) {
    if ((await ping(port, password)) === '+OK\r\n+PONG\r\n') return;
    await delay(pollMs);
  }
}

/** Redis' answer to the password and a PING, or as much of it as came. */
function ping(port: number, password: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = net.connect({ host: '127.0.0.1', port, timeout: 1_000 });
    const finish = (): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => socket.write(`AUTH ${password}\r\nPING\r\n`));
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
      if (answer.split('\r\n').length > 2) finish();
    });
    socket.once('error', finish);
    socket.once('timeout', finish);
    socket.once('close', finish);
  });
}

/** Path of redis-server, which is installed first if it is missing on Debian or Ubuntu. */
async function requireRedis(log: Logger, signal: AbortSignal): Promise<string> {
  const found = await findOrInstall('redis-server', log, signal);
  if ('path' in found) return found.path;
  throw new CoreError(
    'EMBEDDED_SERVER_FAILED',
    `redis-server is not on the PATH and could not be installed. Get it (${found.remedy}), or set REDIS_URL to a running Redis`,
    found.cause === undefined ? {} : { cause: found.cause },
  );
}
