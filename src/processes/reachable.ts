import type { Config } from '../config.ts';
import { CoreError } from '../errors.ts';
import { createClickHouse } from '../stores/clickhouse.ts';
import { createPool } from '../stores/postgres.ts';
import { connectRedis, createRedis } from '../stores/redis.ts';

const connectTimeoutMs = 5_000;

/** Names of parameters by which a client of a store is given a secret, as in `?password=…`. */
const secretParameter = /pass|secret|token|auth/i;

/** A URL fit for a terminal: without its password, wherever in it that is. */
export function maskPassword(url: string): string {
  const parsed = new URL(url);
  if (parsed.password !== '') parsed.password = '***';
  for (const name of [...parsed.searchParams.keys()]) {
    if (secretParameter.test(name)) parsed.searchParams.set(name, '***');
  }
  return parsed.href.replace(/(?<!\/)\/$/, '');
}

/**
 * Asks each store for a sign of life, so that a wrong URL is one clear line at the start.
 * @throws CoreError STORE_UNAVAILABLE naming the store, its URL and the setting.
 */
export async function requireStores(config: Config): Promise<void> {
  const { postgresUrl, redisUrl, clickhouseUrl } = config.stores;
  await require('Postgres', 'DATABASE_URL', postgresUrl, () => askPostgres(postgresUrl));
  await require('Redis', 'REDIS_URL', redisUrl, () => askRedis(redisUrl));
  await require('ClickHouse', 'CLICKHOUSE_URL', clickhouseUrl, () => askClickHouse(clickhouseUrl));
}

async function require(
  name: string,
  setting: string,
  url: string,
  ask: () => Promise<void>,
): Promise<void> {
  try {
    await ask();
  } catch (cause) {
    throw new CoreError(
      'STORE_UNAVAILABLE',
      `${name} cannot be reached at ${maskPassword(url)} (${reasonOf(cause)}). Check ${setting}`,
      { cause },
    );
  }
}

async function askPostgres(url: string): Promise<void> {
  const pool = createPool(url, { max: 1, connectTimeoutMs });
  try {
    await pool.query('SELECT 1');
  } finally {
    await pool.end();
  }
}

async function askRedis(url: string): Promise<void> {
  // The command that fails says only that the connection is closed; why, the client says aside.
  let why: Error | undefined;
  const redis = createRedis(url, { connectTimeoutMs, onError: (error) => (why ??= error) });
  try {
    await connectRedis(redis);
  } catch (thrown) {
    throw why ?? thrown;
  } finally {
    redis.disconnect();
  }
}

async function askClickHouse(url: string): Promise<void> {
  const clickhouse = createClickHouse(url, { requestTimeoutMs: connectTimeoutMs });
  try {
    const answer = await clickhouse.ping();
    if (!answer.success) throw answer.error;
  } finally {
    await clickhouse.close();
  }
}

/** The first line of what the client said; several addresses tried count as the first one's. */
function reasonOf(cause: unknown): string {
  if (cause instanceof AggregateError && cause.message === '') return reasonOf(cause.errors[0]);
  const error = cause as { message?: string; code?: string };
  return (error.message || error.code || String(cause)).split('\n')[0] ?? '';
}
