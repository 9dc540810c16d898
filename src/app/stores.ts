import type { Config } from '../config.ts';
import { CoreError } from '../errors.ts';
import type { Lifecycle } from '../lifecycle.ts';
import type { Logger } from '../log.ts';
import { createClickHouse } from '../stores/clickhouse.ts';
import { createPool } from '../stores/postgres.ts';
import { connectRedis, createRedis, requireDurableRedis } from '../stores/redis.ts';

/** A role (api or worker) that runs in this process. */
export interface Running {
  /** Finishes what is under way and closes everything. */
  close(): Promise<void>;
}

/** Opens the stores of one process; `lifecycle` closes them. */
export async function openStores(
  config: Config,
  log: Logger,
  lifecycle: Lifecycle,
  poolMax: number,
) {
  const { postgresUrl, redisUrl, clickhouseUrl, redisRequireAof } = config.stores;
  const pool = createPool(postgresUrl, {
    max: poolMax,
    onIdleError: (err) => log.debug({ err }, 'postgres connection lost'),
  });
  lifecycle.use('postgres', () => pool.end());
  const redis = createRedis(redisUrl, { onError: (err) => log.debug({ err }, 'redis') });
  lifecycle.use('redis', () => redis.disconnect());
  await connectRedis(redis);
  if (redisRequireAof) await requireDurableRedis(redis);
  else log.warn('CORE_REDIS_REQUIRE_AOF=false: a 200 may not survive a crash of Redis');
  const clickhouse = createClickHouse(clickhouseUrl);
  lifecycle.use('clickhouse', () => clickhouse.close());
  return { pool, redis, clickhouse };
}

/**
 * An empty database answers SQLSTATE 42P01 (undefined table), and so does the database of an older Core.
 */
export function rethrowUnmigrated(thrown: unknown): never {
  if ((thrown as { code?: unknown }).code !== '42P01') throw thrown;
  throw new CoreError(
    'MIGRATION_FAILED',
    'The database lacks tables of Core: run `core migrate` first',
    {
      cause: thrown,
    },
  );
}
