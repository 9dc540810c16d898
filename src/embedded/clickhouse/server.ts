import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { readSecrets } from '../../secrets.ts';
import { type Engine, openEngine } from './engine.ts';
import { createHttpListener } from './http.ts';
import { stoppingFault } from './lane.ts';
import { allowedHosts, createLogin, type Login } from './login.ts';
import { openTemporaryFiles } from './temporary-files.ts';

/*
 * The embedded ClickHouse, a process of its own: chdb behind ClickHouse's HTTP interface. start.ts starts it.
 *
 *   node dist/src/embedded/clickhouse/server.js --host 127.0.0.1 --port 8123 --data DIR --secrets DIR
 *
 * If it has an IPC channel, it sends `{ ready: true, port }` once it answers, and stops when the channel
 * closes. So it never outlives the process that started it. `--secrets` is the folder of the file
 * `secrets.json`, which has the passwords of its two users. `--hosts` adds names, separated by commas, to
 * those that the header Host may have. For more than two queries at once (`--queries-max`),
 * UV_THREADPOOL_SIZE must be larger: see `openEngine`.
 *
 * The way of a query:
 *
 *   http.ts         takes the request and sends the answer, or the fault (fault.ts)
 *   login.ts        refuses web pages; finds the account (access.ts) of a name and password
 *   request.ts      reads settings, parameters and SQL (body.ts); tells an INSERT with rows from other
 *                   statements (statement.ts, tokens.ts)
 *   engine.ts       waits for a place (lane.ts)
 *   judge.ts        has the engine write the statement in its own words, and judges these words (guard.ts:
 *                   setting-rules.ts, function-rules.ts, settings-clause.ts)
 *   connections.ts  sets account, role, settings and parameters on a connection, and runs the statement
 *   results.ts      runs a SELECT into a file (temporary-files.ts) that http.ts sends
 *
 * An INSERT with rows skips judge.ts: http.ts writes its rows to a file, and insert.ts writes a statement of
 * its own that reads the file.
 */

/** A stop waits this long for queries that run, and then cancels them. */
const queryMsMax = 3_000;
/** After that it waits this long for answers that are being sent. */
const sendMsMax = 2_000;
const waitingBytesMax = 1024 ** 3;
/** The name stays, so that files that an earlier version left there are removed. */
const filesFolder = 'spool';

interface Options {
  host: string;
  port: number;
  dataDir: string;
  login: Login;
  hosts: ReadonlySet<string>;
  bodyBytesMax: number;
  resultBytesMax: number;
  queriesMax: number;
}

function log(level: 'error' | 'fatal', message: string, thrown?: unknown): void {
  const err = thrown === undefined ? {} : { err: String(thrown) };
  const time = Date.now();
  process.stderr.write(
    `${JSON.stringify({ level, time, pid: process.pid, ...err, msg: message })}\n`,
  );
}

function readOptions(argv: string[]): Options {
  const { values } = parseArgs({
    args: argv,
    options: {
      host: { type: 'string', default: '127.0.0.1' },
      port: { type: 'string', default: '8123' },
      data: { type: 'string' },
      secrets: { type: 'string' },
      hosts: { type: 'string', default: '' },
      'queries-max': { type: 'string', default: '2' },
      'body-bytes-max': { type: 'string', default: String(256 * 1024 * 1024) },
      'result-bytes-max': { type: 'string', default: String(4 * 1024 ** 3) },
    },
  });
  const port = Number(values.port);
  const bodyBytesMax = Number(values['body-bytes-max']);
  const resultBytesMax = Number(values['result-bytes-max']);
  const queriesMax = Number(values['queries-max']);
  if (values.data === undefined) throw new Error('--data is missing');
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new Error('--port is not a port');
  if (!Number.isSafeInteger(bodyBytesMax) || bodyBytesMax < 1) {
    throw new Error('--body-bytes-max is not a positive integer');
  }
  if (!Number.isSafeInteger(resultBytesMax) || resultBytesMax < 1) {
    throw new Error('--result-bytes-max is not a positive integer');
  }
  if (!Number.isInteger(queriesMax) || queriesMax < 1 || queriesMax > 64) {
    throw new Error('--queries-max is not an integer from 1 to 64');
  }
  const dataDir = path.resolve(values.data);
  // file() takes these for patterns, and they cannot be escaped: an INSERT would find no rows.
  if (/[*?{}]/.test(dataDir)) throw new Error(`--data must not contain * ? { or }: ${dataDir}`);
  const hosts = allowedHosts(values.hosts.split(',').filter((name) => name !== ''));
  const login = openLogin(values.secrets);
  const bounds = { bodyBytesMax, resultBytesMax, queriesMax };
  return { host: values.host, port, dataDir, login, hosts, ...bounds };
}

/** The passwords come from a file, because others can read arguments and the environment. */
function openLogin(folder: string | undefined): Login {
  if (folder === undefined) throw new Error('--secrets is missing');
  const secrets = readSecrets(path.resolve(folder));
  if (secrets === undefined) throw new Error(`--secrets: ${folder} has no secrets.json`);
  return createLogin({ core: secrets.clickhouse, analyst: secrets.clickhouseAnalyst });
}

function listen(server: http.Server, options: Options): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: options.host, port: options.port }, () => {
      server.off('error', reject);
      resolve((server.address() as AddressInfo).port);
    });
  });
}

/** Serves until a signal comes or the parent ends. A failure to start is thrown. */
async function serve(options: Options): Promise<void> {
  const database = 'core';
  const { queriesMax, resultBytesMax } = options;
  const directory = path.join(options.dataDir, 'server');
  const configFolder = path.join(options.dataDir, 'config');
  for (const folder of [directory, configFolder]) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  }
  const files = openTemporaryFiles(path.join(options.dataDir, filesFolder), waitingBytesMax);
  const { promise: engine, resolve, reject } = deferred<Engine>();
  const server = http.createServer(
    // A query and its parameters may be in the URL; ClickHouse has the same bound.
    { maxHeaderSize: 1024 * 1024, keepAliveTimeout: 10_000 },
    createHttpListener({
      engine,
      files,
      login: options.login,
      hosts: options.hosts,
      database,
      bodyBytesMax: options.bodyBytesMax,
      onFault: (thrown) => log('error', 'A request failed', thrown),
    }),
  );
  const unanswered = new Set<http.ServerResponse>();
  server.on('request', (_, response) => {
    unanswered.add(response);
    response.once('close', () => unanswered.delete(response));
  });
  const stopped = untilStopped();
  // The port comes first: a process that finds it taken must not have touched the data.
  const port = await listen(server, options);
  // If the engine never opens, requests that wait for it end with this process.
  engine.catch(() => undefined);
  try {
    resolve(
      await openEngine({ directory, configFolder, database, files, queriesMax, resultBytesMax }),
    );
  } catch (thrown) {
    reject(stoppingFault());
    throw thrown;
  }
  process.send?.({ ready: true, port });
  await stopped;
  await stop(server, await engine, unanswered);
}

/** Answers the queries that run, refuses those that wait, and closes the data directory. */
async function stop(
  server: http.Server,
  engine: Engine,
  unanswered: ReadonlySet<http.ServerResponse>,
): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  await engine.close(queryMsMax);
  const tooLate = AbortSignal.timeout(sendMsMax);
  for (const response of unanswered) {
    // This answer is over, whether it was closed or the time is up.
    if (!response.closed) await once(response, 'close', { signal: tooLate }).catch(() => undefined);
  }
  server.closeAllConnections();
  await closed;
}

function untilStopped(): Promise<void> {
  const supervised = process.send !== undefined;
  return new Promise((resolve) => {
    process.once('SIGTERM', () => resolve());
    if (supervised) process.once('disconnect', () => resolve());
    // Ctrl-C and a closed terminal reach the whole group. If there is a parent, it decides the order of the
    // stops.
    for (const signal of ['SIGINT', 'SIGHUP'] as const) {
      process.on(signal, () => {
        if (!supervised) resolve();
      });
    }
  });
}

function deferred<T>(): {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (cause: Error) => void;
} {
  let resolve: (value: T) => void = () => undefined;
  let reject: (cause: Error) => void = () => undefined;
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}

process.on('uncaughtException', (thrown) => {
  log('fatal', 'Uncaught exception', thrown);
  process.exit(1);
});

try {
  await serve(readOptions(process.argv.slice(2)));
  process.exit(0);
} catch (thrown) {
  const taken = (thrown as NodeJS.ErrnoException).code === 'EADDRINUSE';
  log('fatal', taken ? 'The port is taken' : 'The embedded ClickHouse cannot start', thrown);
  process.exit(1);
}
