import { once } from 'node:events';
import http from 'node:http';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import type { Test } from 'tap';
import { startApi } from '../../src/app/api.ts';
import { type Config, readConfig } from '../../src/config.ts';
import { createLogger } from '../../src/log.ts';
import { createNode } from '../../src/nodes/change.ts';
import { migratePostgres } from '../../src/stores/migrate.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { connectRedis, createRedis } from '../../src/stores/redis.ts';
import { freshStores, noRowIsLate } from './stores.ts';

/** A registered node. */
export interface TestNode {
  nodeId: number;
  authKey: string;
}

export type TestApi = Awaited<ReturnType<typeof startTestApi>>;

/**
 * Starts an api in this process, on a free port and on stores of this test's own. `settings` are
 * environment variables.
 */
export async function startTestApi(
  t: Test,
  settings: Record<string, string> = {},
  log = createLogger('silent'),
) {
  const stores = await freshStores(t);
  const config: Config = readConfig({
    DATABASE_URL: stores.databaseUrl,
    REDIS_URL: stores.redisUrl,
    CLICKHOUSE_URL: stores.clickhouseUrl,
    CORE_REDIS_PREFIX: stores.redisPrefix,
    CORE_LOG_LEVEL: 'silent',
    ...noRowIsLate,
    ...settings,
  });
  config.http.port = 0;
  config.admin.port = 0;
  const pool = createPool(config.stores.postgresUrl, { max: 4 });
  const redis = createRedis(config.stores.redisUrl);
  await connectRedis(redis);
  await migratePostgres(pool, log);
  let now = (): number => Date.now();
  const api = await startApi(config, log, () => now());
  const agent = new http.Agent({ keepAlive: true });
  t.teardown(async () => {
    agent.destroy();
    await api.close();
    await pool.end();
    redis.disconnect();
  });
  return {
    ...api,
    url: `http://127.0.0.1:${api.port}`,
    /** The operators' listener, for `get` and `post`. */
    admin: { url: `http://127.0.0.1:${api.adminPort}`, agent },
    agent,
    config,
    pool,
    redis,
    log,
    setClock(nowMs: () => number) {
      now = nowMs;
    },
    issueCode: async () => {
      const node = await createNode(
        pool,
        { name: 'test', region: 'eu', host: '', ip: '' },
        config.nodes,
      );
      return { nodeId: node.nodeId, code: node.code };
    },
  };
}

/** Registers a new node over HTTP, as an agent does. */
export async function registerTestNode(api: TestApi): Promise<TestNode> {
  const { code } = await api.issueCode();
  const reply = await post(api, '/node/register', {
    code,
    name: 'n',
    host: 'h',
    ip: '1.2.3.4',
    region: 'eu',
  });
  if (reply.status !== 200) throw new Error(`register answered ${reply.status}`);
  return reply.json as unknown as TestNode;
}

interface TestReply {
  status: number;
  headers: http.IncomingHttpHeaders;
  text: string;
  json: { error?: { code: string; message: string; issues?: { path: string }[] } } & Record<
    string,
    unknown
  >;
}

interface SendOptions {
  node?: TestNode;
  headers?: Record<string, string>;
}

/** Sends any request over the test's keep-alive connections. */
export async function send(
  api: Pick<TestApi, 'url' | 'agent'>,
  method: string,
  path: string,
  options: SendOptions & { body?: string | Uint8Array } = {},
): Promise<TestReply> {
  const key = options.node === undefined ? {} : { 'x-node-auth-key': options.node.authKey };
  const request = http.request(api.url + path, {
    method,
    agent: api.agent,
    headers: { ...key, ...options.headers },
  });
  request.end(options.body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  const received = await buffer(response);
  const isGzip = response.headers['content-encoding'] === 'gzip' && received.length > 0;
  const text = (isGzip ? gunzipSync(received) : received).toString();
  const isJson = response.headers['content-type']?.startsWith('application/json') === true;
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    text,
    json: isJson && text !== '' ? JSON.parse(text) : {},
  };
}

/** POSTs a value as JSON. A string or bytes are sent unchanged. */
export function post(
  api: Pick<TestApi, 'url' | 'agent'>,
  path: string,
  body: unknown,
  options: SendOptions = {},
): Promise<TestReply> {
  const raw = typeof body === 'string' || body instanceof Uint8Array;
  return send(api, 'POST', path, {
    ...options,
    headers: { 'content-type': 'application/json', ...options.headers },
    body: raw ? body : JSON.stringify(body),
  });
}

export function get(
  api: Pick<TestApi, 'url' | 'agent'>,
  path: string,
  options: SendOptions = {},
): Promise<TestReply> {
  return send(api, 'GET', path, options);
}

/** A valid usage entry, with `overrides`. */
export function usageEntry(overrides: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    userId: 1,
    subscriptionId: 7,
    nodeProtocolId: 3,
    bytesUp: 1_000,
    bytesDown: 2_000,
    recordedAt: '2026-11-24T10:00:00Z',
    ...overrides,
  };
}

/** Entries that stay large in their short form: about 41 bytes each in the spool. */
export function wideEntries(count: number, userId: number): Record<string, unknown>[] {
  const large = Number.MAX_SAFE_INTEGER;
  return Array.from({ length: count }, (_, index) =>
    usageEntry({
      userId: index % 2 === 0 ? userId : large,
      nodeProtocolId: index % 2 === 0 ? 1 : large,
      bytesUp: large,
      bytesDown: large,
    }),
  );
}

/**
 * Asks again until `isDone`, for things that other processes do in their own time. After `msMax` it
 * fails and shows the last answer.
 */
export async function until<T>(
  ask: () => Promise<T>,
  isDone: (answer: T) => boolean,
  msMax = 20_000,
): Promise<T> {
  const deadlineMs = performance.now() + msMax;
  for (;;) {
    const answer = await ask();
    if (isDone(answer)) return answer;
    if (performance.now() > deadlineMs) {
      throw new Error(`not done after ${msMax} ms: ${JSON.stringify(answer)}`);
    }
    await new Promise((resume) => setTimeout(resume, 25));
  }
}
