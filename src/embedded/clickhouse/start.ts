import { mkdirSync, realpathSync } from 'node:fs';
import path from 'node:path';
import type { Logger } from '../../log.ts';
import { nodeFlags } from '../../processes/node-flags.ts';
import { requireFreePort } from '../../processes/port.ts';
import { niceness } from '../../processes/priority.ts';
import { type Supervised, supervise } from '../../processes/supervisor.ts';
import { projectRoot } from '../../root.ts';
import { endLeftovers, programName, type ServerMark, writePidFile } from '../leftovers.ts';

const serverFile = path.join(projectRoot, 'dist', 'src', 'embedded', 'clickhouse', 'server.js');

/** Queries that run at the same time, in addition to the one insert. */
const queriesMax = 8;
/** Threads of libuv's pool: for the queries, the insert, and some for files and compression. */
const threads = 12;

/**
 * Starts the embedded ClickHouse: a process of its own (server.ts) that owns its data directory and serves
 * ClickHouse's HTTP interface. Its users' passwords are in the data directory's secrets. Requests may name
 * it by `hosts`, in addition to the names of the loopback interface. It ends by itself when this process is
 * gone.
 */
export async function startClickHouse(
  options: { dataDir: string; port: number; hosts?: readonly string[] },
  log: Logger,
  signal: AbortSignal,
): Promise<Supervised> {
  const dir = path.join(realpathSync(options.dataDir), 'clickhouse');
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const mark: ServerMark = {
    name: 'clickhouse',
    dir,
    pidFile: path.join(options.dataDir, 'clickhouse.pid'),
    relationOf: (argv) =>
      programName(argv).startsWith('node') && argv.includes(serverFile) ? 'main' : 'stranger',
    stopSignal: 'SIGTERM',
  };
  await endLeftovers(mark, log);
  await requireFreePort('127.0.0.1', options.port, 'CORE_CLICKHOUSE_PORT');
  return supervise(
    {
      name: 'clickhouse',
      // Each running query holds a thread of libuv's pool. A program cannot change the pool's size after
      // its start. With the default of four, two long queries would make the worker's insert wait.
      command: 'env',
      args: [
        `UV_THREADPOOL_SIZE=${threads}`,
        // Times are UTC, whatever the time zone of the host.
        'TZ=UTC',
        process.execPath,
        ...nodeFlags,
        serverFile,
        ...['--host', '127.0.0.1', '--port', String(options.port)],
        ...['--data', dir, '--queries-max', String(queriesMax)],
        ...['--secrets', path.resolve(options.dataDir), '--hosts', (options.hosts ?? []).join(',')],
      ],
      cwd: dir,
      logFile: path.join(options.dataDir, 'logs', 'clickhouse.log'),
      niceness: niceness.clickhouse,
      ready: 'ipc',
      readyMsMax: 120_000,
      stopSignal: 'SIGTERM',
      stopMsMax: 8_000,
      failureCode: 'EMBEDDED_SERVER_FAILED',
      onSpawn: (pid) => writePidFile(mark, pid),
    },
    log,
    signal,
  );
}
