import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import path from 'node:path';
import { type ClickHouseClient, createClient } from '@clickhouse/client';
import type { Test } from 'tap';
import { projectRoot } from '../../src/root.ts';
import { makeSecrets } from '../../src/secrets.ts';

export const serverFile = path.join(
  projectRoot,
  'dist',
  'src',
  'embedded',
  'clickhouse',
  'server.js',
);

export interface ClickHouseServer {
  child: ChildProcess;
  port: number;
  url: string;
  passwords: { core: string; analyst: string };
  /** The headers of Core's own user. */
  headers: Record<string, string>;
  stop: (signal?: NodeJS.Signals) => Promise<number | NodeJS.Signals | null>;
}

/** Starts the embedded ClickHouse as Core does, as a process with an IPC channel. */
export async function startClickHouseServer(
  test: Test,
  dataDir: string,
  more: readonly string[] = [],
): Promise<ClickHouseServer> {
  const { clickhouse: core, clickhouseAnalyst: analyst } = makeSecrets(dataDir);
  const child = fork(serverFile, ['--port', '0', ...serverFolders(dataDir), ...more], {
    stdio: 'inherit',
    env: { ...process.env, UV_THREADPOOL_SIZE: '8', TZ: 'UTC' },
  });
  const ended = once(child, 'exit');
  const stop: ClickHouseServer['stop'] = async (signal = 'SIGTERM') => {
    child.kill(signal);
    const [code, by] = (await ended) as [number | null, NodeJS.Signals | null];
    return by ?? code;
  };
  test.teardown(() => stop('SIGKILL'));
  const [first] = await Promise.race([once(child, 'message'), ended]);
  const { ready, port } = first as { ready: boolean; port: number };
  test.equal(ready, true, 'the server says that it is ready');
  return {
    child,
    port,
    url: `http://127.0.0.1:${port}`,
    passwords: { core, analyst },
    headers: userHeaders('core', core),
    stop,
  };
}

/** Arguments that tell a server where its data and its passwords are. */
export function serverFolders(dataDir: string): string[] {
  return ['--data', dataDir, '--secrets', dataDir];
}

export function userHeaders(user: string, password: string): Record<string, string> {
  return { 'x-clickhouse-user': user, 'x-clickhouse-key': password };
}

export function connectClickHouse(
  test: Test,
  server: ClickHouseServer,
  options: { database?: string; username?: 'core' | 'analyst' } = {},
): ClickHouseClient {
  const { database = 'core', username = 'core' } = options;
  const client = createClient({
    url: server.url,
    username,
    password: server.passwords[username],
    database,
    log: { level: 127 as never },
  });
  test.teardown(() => client.close());
  return client;
}

export interface Answer {
  status: number;
  /** ClickHouse's error number; undefined if there is none. */
  code: string | undefined;
  headers: http.IncomingHttpHeaders;
  text: string;
}

/** Sends a request with exactly these headers. Unlike `fetch`, it also sends a given `Host`. */
export async function ask(
  server: Pick<ClickHouseServer, 'port'>,
  target: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  const { method = 'GET', headers = {}, body } = options;
  const request = http.request({
    host: '127.0.0.1',
    port: server.port,
    path: target,
    method,
    headers: {
      ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }),
      ...headers,
    },
  });
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk;
  const code = response.headers['x-clickhouse-exception-code']?.toString();
  return { status: response.statusCode ?? 0, code, headers: response.headers, text };
}
