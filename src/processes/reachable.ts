import type { Config } from '../config.ts';
import { CoreError } from '../errors.ts';
import { createClickHouse } from '../stores/clickhouse.ts';
import { createPool } from '../stores/postgres.ts';
import { connectRedis, createRedis } from '../stores/redis.ts';

const connectTimeoutMs = 5_000;

/** Names of URL parameters that hold a secret for a client of a store, as in `?password=…`. */
const secretParameter = /pass|secret|token|auth/i;

/** A URL for a terminal, with its passwords masked. */
export function maskPassword(url: string): string {
  const parsed = new URL(url);
  if (parsed.password !== '') parsed.password = '***';
  for (const name of [...parsed.searchParams.keys()]) {
    if (secretParameter.test(name)) parsed.searchParams.set(name, '***');
  }
  return parsed.href.replace(/(?<!\/)\/$/, '');
}

/**
 * Makes sure that each store answers, so that a wrong URL is one clear line at the start.
 * @throws CoreError STORE_UNAVAILABLE naming the store, its URL and the setting.
 */
export async function requireStores(config: Config): Promise<void> {
  const { postgresUrl, redisUrl, clickhouseUrl } = config.stores;
  await requireStore('Postgres', 'DATABASE_URL', postgresUrl, () => askPostgres(postgresUrl));
  await requireStore('Redis', 'REDIS_URL', redisUrl, () => askRedis(redisUrl));
  await requireStore('ClickHouse', 'CLICKHOUSE_URL', clickhouseUrl, () =>
    askClickHouse(clickhouseUrl),
  );
}

async function requireStore(
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
  // The failed command says only that the connection is closed. An event of the client has the reason.
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

/** The first line of a client's error. If it tried several addresses, the error of the first one. */
export function reasonOf(cause: unknown): string {
  if (cause instanceof AggregateError && cause.message === '') return reasonOf(cause.errors[0]);
  const error = cause as { message?: string; code?: string };
  return (error.message || error.code || String(cause)).split('\n')[0] ?? '';
}
