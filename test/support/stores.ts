import { randomBytes } from 'node:crypto';
import { Redis } from 'ioredis';
import pg from 'pg';
import type { Test } from 'tap';
import { type Config, readConfig } from '../../src/config.ts';
import { createLogger } from '../../src/log.ts';
import { createClickHouse } from '../../src/stores/clickhouse.ts';
import { migrateClickHouse, migratePostgres } from '../../src/stores/migrate.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { connectRedis, createRedis } from '../../src/stores/redis.ts';
import { freePorts } from './free-port.ts';

interface FreshStores {
  /** Core's configuration with these stores, free ports, and a silent log. */
  config: Config;
  /** The same settings as environment variables, for child processes. */
  environment: Record<string, string>;
  databaseUrl: string;
  redisUrl: string;
  redisPrefix: string;
  clickhouseUrl: string;
}

/**
 * Tests send rows of fixed dates and look for them in the usual streams, so no age counts as late.
 * test/load/late.test.ts tests the late streams.
 */
export const noRowIsLate = { CORE_LATE_DAYS: '36500' } as const;

/**
 * An empty Postgres database, an empty ClickHouse database and a Redis prefix for one test file, on the
 * servers that `npm test` started. The teardown removes all three. Core's own role owns the database,
 * and the URL names that role, since Core needs no superuser.
 *
 * `settings` are environment variables on top, e.g. `{ CORE_SPOOL_SHARDS: '1' }`.
 */
export async function freshStores(
  t: Test,
  settings: Record<string, string> = {},
): Promise<FreshStores> {
  const postgresServer = required('CORE_TEST_POSTGRES_URL');
  const adminUrl = required('CORE_TEST_POSTGRES_ADMIN_URL');
  const redisUrl = required('CORE_TEST_REDIS_URL');
  const clickhouseServer = required('CORE_TEST_CLICKHOUSE_URL');
  const name = `t${randomBytes(6).toString('hex')}`;
  await inPostgres(adminUrl, `CREATE DATABASE ${name} OWNER core`);
  t.teardown(() => inPostgres(adminUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
  await inClickHouse(clickhouseServer, `CREATE DATABASE ${name}`);
  t.teardown(() => inClickHouse(clickhouseServer, `DROP DATABASE IF EXISTS ${name}`));
  t.teardown(() => dropKeys(redisUrl, name));
  const [port, adminPort] = await freePorts(2);
  const databaseUrl = withPath(postgresServer, name);
  const clickhouseUrl = withPath(clickhouseServer, name);
  const environment = {
    CORE_PORT: String(port),
    CORE_ADMIN_PORT: String(adminPort),
    CORE_LOG_LEVEL: 'silent',
    CORE_REDIS_PREFIX: name,
    ...noRowIsLate,
    DATABASE_URL: databaseUrl,
    REDIS_URL: redisUrl,
    CLICKHOUSE_URL: clickhouseUrl,
    ...settings,
  };
  const config = readConfig(environment);
  return { config, environment, databaseUrl, redisUrl, redisPrefix: name, clickhouseUrl };
}

/**
 * The same with Core's tables in Postgres, and with clients of the test's own for Postgres and Redis.
 * `prefix` is the first part of every Redis key.
 */
export async function openStores(
  t: Test,
  poolOptions: { max: number; connectTimeoutMs?: number },
): Promise<FreshStores & { pool: pg.Pool; redis: Redis; prefix: string }> {
  const stores = await freshStores(t);
  const pool = createPool(stores.databaseUrl, poolOptions);
  t.teardown(() => pool.end());
  const redis = createRedis(stores.redisUrl);
  t.teardown(() => redis.disconnect());
  await connectRedis(redis);
  await migratePostgres(pool, createLogger('silent'));
  return { ...stores, pool, redis, prefix: stores.redisPrefix };
}

/** Fresh stores, clients of the test's own for both databases, and a function that makes Core's tables. */
export async function openDatabases(t: Test, settings: Record<string, string> = {}) {
  const stores = await freshStores(t, settings);
  const log = createLogger('silent');
  const pool = createPool(stores.databaseUrl);
  const clickhouse = createClickHouse(stores.clickhouseUrl);
  t.teardown(async () => {
    await pool.end();
    await clickhouse.close();
  });
  const migrate = async (): Promise<void> => {
    await migratePostgres(pool, log);
    await migrateClickHouse(stores.clickhouseUrl, pool, log);
  };
  return { ...stores, log, pool, clickhouse, migrate };
}

/** A test without its servers fails. If it were skipped, nobody would notice that nothing was tested. */
function required(variable: string): string {
  const value = process.env[variable];
  if (value !== undefined && value !== '') return value;
  throw new Error(`${variable} is not set: run the tests with npm test, which starts the servers`);
}

function withPath(server: string, database: string): string {
  const url = new URL(server);
  url.pathname = `/${database}`;
  return url.href;
}

async function inPostgres(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

async function inClickHouse(url: string, statement: string): Promise<void> {
  const clickhouse = createClickHouse(url);
  try {
    await clickhouse.command({ query: statement });
  } finally {
    await clickhouse.close();
  }
}

/** The prefix is random, so every key that contains it (hash tags, BullMQ) is this test's. */
async function dropKeys(url: string, prefix: string): Promise<void> {
  const redis = new Redis(url, { lazyConnect: true });
  redis.on('error', () => undefined);
  try {
    await redis.connect();
    for await (const keys of redis.scanStream({ match: `*${prefix}*`, count: 1_000 })) {
      const names = keys as string[];
      if (names.length > 0) await redis.unlink(...names);
    }
  } finally {
    redis.disconnect();
  }
}
