import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { ClickHouseError } from '@clickhouse/client';
import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { Config } from '../config.ts';
import { CoreError } from '../errors.ts';
import { readInstanceFile } from '../instance-file.ts';
import { Lifecycle } from '../lifecycle.ts';
import { createLogger, type Logger } from '../log.ts';
import { analystUrl, readSecrets } from '../secrets.ts';
import { type ClickHouseClient, createClickHouse } from '../stores/clickhouse.ts';
import { readInstance } from '../stores/instance.ts';
import { createPool } from '../stores/postgres.ts';
import { connectRedis, createRedis } from '../stores/redis.ts';
import { escapedJson, jsonText, printableLines } from '../text.ts';
import { renderFields } from './table.ts';

/** Blocks, blanks and the sequences that set colours, line by line. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: each sequence begins with one.
const drawing = /^(?:[ ▀▄█\n]|\u001b\[\d{1,2}m)*$/;
/** An operator waits at a prompt: a store that does not answer by then is away. */
const connectTimeoutMs = 3_000;
/** Longest that a query of an analyst may run. */
const analysisTimeoutMs = 600_000;

/** What a command is given: settings, output, and the stores, each opened when first asked for. */
export interface CliContext {
  config: Config;
  json: boolean;
  log: Logger;
  stdin: NodeJS.ReadableStream;
  /** Whether somebody is there to be asked: never with `--json`. */
  isAtTerminal: boolean;
  /** For progress, which is drawn. */
  stderr: NodeJS.WritableStream;
  /** Prints the one value of the command: JSON with `--json`, else as `text` puts it. */
  print(value: unknown, text?: string): void;
  /**
   * Writes to stdout, text or a part of the JSON, once what was written before has gone out. This and
   * `print` let through no character that could do something to a terminal, whatever they are given.
   */
  write(text: string): Promise<void>;
  /** Writes what Core itself has drawn, in colours. */
  draw(picture: string): Promise<void>;
  /** Asks on stderr, and resolves with the line that is typed; undefined if there is none. */
  ask(question: string): Promise<string | undefined>;
  postgres(): Promise<pg.Pool>;
  redis(): Promise<Redis>;
  clickhouse(): Promise<ClickHouseClient>;
  /** ClickHouse for a query of the operator's own: the embedded one as the user who only reads. */
  analysis(): Promise<ClickHouseClient>;
  /** Closes what was opened, so that the process ends by itself. */
  close(): Promise<void>;
}

export function createCliContext(options: {
  config: Config;
  json: boolean;
  stdin: NodeJS.ReadableStream;
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream;
}): CliContext {
  const { config, json, stdin, stdout, stderr } = options;
  const lifecycle = new Lifecycle();
  const send = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      stdout.write(text, (error) => (error ? reject(error) : resolve()));
    });
  let pool: Promise<pg.Pool> | undefined;
  let redis: Promise<Redis> | undefined;
  let clickhouse: Promise<ClickHouseClient> | undefined;
  let analysis: Promise<ClickHouseClient> | undefined;
  return {
    config,
    json,
    log: createLogger(config.logLevel),
    stdin,
    isAtTerminal: !json && (stdin as { isTTY?: boolean }).isTTY === true,
    stderr,
    print(value, text) {
      if (json) stdout.write(`${jsonText(value)}\n`);
      else stdout.write(printableLines(text ?? renderFields(value as Record<string, unknown>)));
    },
    write: (text) => send(json ? escapedJson(text) : printableLines(text)),
    draw(picture) {
      assert(drawing.test(picture), 'a picture is blocks and colours only');
      return send(picture);
    },
    async ask(question) {
      stderr.write(printableLines(question));
      const line = await readLine(stdin);
      if (line === undefined) stderr.write('\n');
      return line;
    },
    postgres: () => (pool ??= openPostgres(config, lifecycle)),
    redis: () => (redis ??= openRedis(config, lifecycle)),
    clickhouse: () => (clickhouse ??= openClickHouse(config, lifecycle)),
    analysis: async () => (analysis ??= openClickHouse(config, lifecycle, analysisUrl(config))),
    close: () => lifecycle.close(),
  };
}

/** The next line; undefined if the input ends before it. The terminal then keeps the process no longer. */
async function readLine(stdin: NodeJS.ReadableStream): Promise<string | undefined> {
  const lines = createInterface({ input: stdin, terminal: false });
  try {
    return await new Promise((resolve) => {
      lines.once('line', resolve);
      lines.once('close', () => resolve(undefined));
    });
  } finally {
    lines.close();
    (stdin as { unref?: () => void }).unref?.();
  }
}

async function openPostgres(config: Config, lifecycle: Lifecycle): Promise<pg.Pool> {
  const { postgresUrl: url } = config.stores;
  const pool = createPool(url, { max: 2, connectTimeoutMs });
  lifecycle.use('Postgres', () => pool.end());
  try {
    const client = await pool.connect();
    client.release();
  } catch (cause) {
    throw storeAway('Postgres', config, cause);
  }
  if (config.embedded.postgres) await requireOwnInstance(config, pool);
  return pool;
}

/**
 * The ports of embedded servers are the same for every Core unless a setting says otherwise. A command that
 * an operator runs in another folder than its Core must not change the Core that happens to run there.
 */
async function requireOwnInstance({ embedded, stores }: Config, pool: pg.Pool): Promise<void> {
  const own = readInstanceFile(embedded.dataDir);
  if (own === undefined) return;
  const found = await readInstance(pool);
  if (found === own) return;
  throw new CoreError(
    'INSTANCE_MISMATCH',
    `Postgres at ${hostOf(stores.postgresUrl)} is that of the Core ${found}, and the data directory ${embedded.dataDir} that of the Core ${own}. Set CORE_DATA_DIR to the directory of the Core that runs there, or CORE_POSTGRES_PORT to the port of this one`,
  );
}

async function openRedis(config: Config, lifecycle: Lifecycle): Promise<Redis> {
  const redis = createRedis(config.stores.redisUrl, { connectTimeoutMs });
  lifecycle.use('Redis', () => redis.disconnect());
  let lastError: Error | undefined;
  redis.on('error', (error: Error) => {
    lastError = error;
  });
  try {
    await connectRedis(redis);
    return redis;
  } catch (cause) {
    // The client itself only says that the connection is closed; the socket said why.
    throw storeAway('Redis', config, lastError ?? (cause as Error).cause ?? cause);
  }
}

/** A ClickHouse that Core does not run itself has no user of ours that only reads. */
function analysisUrl(config: Config): string {
  const { clickhouse, dataDir } = config.embedded;
  const secrets = clickhouse ? readSecrets(dataDir) : undefined;
  return analystUrl(config, secrets) ?? config.stores.clickhouseUrl;
}

async function openClickHouse(
  config: Config,
  lifecycle: Lifecycle,
  url = config.stores.clickhouseUrl,
): Promise<ClickHouseClient> {
  // Asked with little patience first, since the queries themselves may take long.
  const probe = createClickHouse(url, { requestTimeoutMs: connectTimeoutMs });
  try {
    const result = await probe.ping({ select: true });
    if (!result.success) {
      const isAnswer = result.error instanceof ClickHouseError;
      if (!isAnswer || isLoginRefused(result.error)) {
        throw storeAway('ClickHouse', config, result.error);
      }
    }
  } finally {
    await probe.close();
  }
  const clickhouse = createClickHouse(url, { requestTimeoutMs: analysisTimeoutMs });
  lifecycle.use('ClickHouse', () => clickhouse.close());
  return clickhouse;
}

/** How each store is named in settings. */
const storeSettings = {
  Postgres: {
    url: 'postgresUrl',
    embedded: 'postgres',
    urlSetting: 'DATABASE_URL',
    portSetting: 'CORE_POSTGRES_PORT',
  },
  Redis: {
    url: 'redisUrl',
    embedded: 'redis',
    urlSetting: 'REDIS_URL',
    portSetting: 'CORE_REDIS_PORT',
  },
  ClickHouse: {
    url: 'clickhouseUrl',
    embedded: 'clickhouse',
    urlSetting: 'CLICKHOUSE_URL',
    portSetting: 'CORE_CLICKHOUSE_PORT',
  },
} as const;

/** Names the store and where it was looked for; never the password in the URL. */
function storeAway(store: keyof typeof storeSettings, config: Config, cause: unknown): CoreError {
  const names = storeSettings[store];
  const where = hostOf(config.stores[names.url]);
  const { dataDir } = config.embedded;
  if (config.embedded[names.embedded] && isLoginRefused(cause)) {
    return new CoreError(
      'INSTANCE_MISMATCH',
      `${store} at ${where} does not take the password of the data directory ${dataDir}, so it is that of another Core. Set CORE_DATA_DIR to the directory of the Core that runs there, or ${names.portSetting} to the port of this one`,
      { cause },
    );
  }
  // The settings of a Core that was started in another terminal are not known in this one.
  const question = config.embedded[names.embedded]
    ? `is core up running, with the same ${names.portSetting}?`
    : `is it running where ${names.urlSetting} says?`;
  return new CoreError(
    'STORE_UNAVAILABLE',
    `${store} at ${where} cannot be used (${reasonOf(cause)}); ${question}`,
    { cause },
  );
}

/**
 * SQLSTATE 28P01 and 28000, what pg says itself if it has no password to give, Redis' replies, and
 * ClickHouse's codes 194, 516 and 192 (no password, a wrong one, no such user).
 */
function isLoginRefused(cause: unknown): boolean {
  const { code, message = '' } = cause as { code?: unknown; message?: string };
  return (
    ['28P01', '28000', '194', '516', '192'].includes(String(code)) ||
    /client password must be a string|^(NOAUTH|WRONGPASS)\b/.test(message)
  );
}

function hostOf(url: string): string {
  const { hostname, port } = new URL(url);
  return port === '' ? hostname : `${hostname}:${port}`;
}

function reasonOf(cause: unknown): string {
  if (cause instanceof AggregateError && cause.errors.length > 0) return reasonOf(cause.errors[0]);
  if (!(cause instanceof Error)) return String(cause);
  return cause.message || String((cause as { code?: unknown }).code ?? cause.name);
}
