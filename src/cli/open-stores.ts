import { ClickHouseError } from '@clickhouse/client';
import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { Config } from '../config.ts';
import { CoreError } from '../errors.ts';
import { readInstanceFile } from '../instance-file.ts';
import type { Lifecycle } from '../lifecycle.ts';
import { reasonOf } from '../processes/reachable.ts';
import { analystUrl, readSecrets } from '../secrets.ts';
import { type ClickHouseClient, createClickHouse } from '../stores/clickhouse.ts';
import { readInstance } from '../stores/instance.ts';
import { createPool } from '../stores/postgres.ts';
import { connectRedis, createRedis } from '../stores/redis.ts';

// The stores of a command. Each function waits until its store answers, and leaves the closing to the
// lifecycle.

/** An operator waits at a prompt, so a store that does not answer in this time counts as away. */
const connectTimeoutMs = 3_000;
/** The longest that a query of the operator's own may run. */
const analysisTimeoutMs = 600_000;

/** @throws CoreError STORE_UNAVAILABLE; INSTANCE_MISMATCH if it is the Postgres of another Core. */
export async function openPostgres(config: Config, lifecycle: Lifecycle): Promise<pg.Pool> {
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
 * Embedded servers have the same ports in every Core unless a setting says otherwise. A command that an
 * operator runs in the wrong folder must not change another Core that happens to use these ports.
 */
async function requireOwnInstance({ embedded, stores }: Config, pool: pg.Pool): Promise<void> {
  const own = readInstanceFile(embedded.dataDir);
  if (own === undefined) return;
  const found = await readInstance(pool);
  if (found === own) return;
  throw new CoreError(
    'INSTANCE_MISMATCH',
    `Postgres at ${hostOf(stores.postgresUrl)} belongs to the Core ${found}, and the data directory ${embedded.dataDir} belongs to the Core ${own}. Set CORE_DATA_DIR to the directory of the Core that runs there, or CORE_POSTGRES_PORT to the port of this one`,
  );
}

/** @throws CoreError STORE_UNAVAILABLE; INSTANCE_MISMATCH if it is the Redis of another Core. */
export async function openRedis(config: Config, lifecycle: Lifecycle): Promise<Redis> {
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
    // The client only says that the connection is closed. The socket's error says why.
    throw storeAway('Redis', config, lastError ?? (cause as Error).cause ?? cause);
  }
}

/** ClickHouse for queries of the operator's own. Only an embedded one has a user who only reads. */
export async function openAnalysis(
  config: Config,
  lifecycle: Lifecycle,
): Promise<ClickHouseClient> {
  const { clickhouse, dataDir } = config.embedded;
  const secrets = clickhouse ? readSecrets(dataDir) : undefined;
  return openClickHouse(config, lifecycle, analystUrl(config, secrets));
}

/** @throws CoreError STORE_UNAVAILABLE; INSTANCE_MISMATCH if it is the ClickHouse of another Core. */
export async function openClickHouse(
  config: Config,
  lifecycle: Lifecycle,
  url = config.stores.clickhouseUrl,
): Promise<ClickHouseClient> {
  // The probe has a short time-out of its own, since the queries themselves may take long.
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

/** The settings of each store. */
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

/** An error that names the store and its address, but never the password in its URL. */
function storeAway(store: keyof typeof storeSettings, config: Config, cause: unknown): CoreError {
  const names = storeSettings[store];
  const where = hostOf(config.stores[names.url]);
  const { dataDir } = config.embedded;
  if (config.embedded[names.embedded] && isLoginRefused(cause)) {
    return new CoreError(
      'INSTANCE_MISMATCH',
      `${store} at ${where} does not take the password of the data directory ${dataDir}, so it belongs to another Core. Set CORE_DATA_DIR to the directory of the Core that runs there, or ${names.portSetting} to the port of this one`,
      { cause },
    );
  }
  // A Core that was started in another terminal may have other settings than this one.
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
 * Whether the store refused the login. Postgres answers SQLSTATE 28P01 or 28000, and pg has a message of
 * its own if it has no password. Redis answers NOAUTH or WRONGPASS, and ClickHouse 194 (no password), 516
 * (a wrong one) or 192 (no such user).
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
