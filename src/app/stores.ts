import type { Config } from '../config.ts';
import { CoreError } from '../errors.ts';
import { Lifecycle } from '../lifecycle.ts';
import type { Logger } from '../log.ts';
import { registerStreams } from '../spool/streams.ts';
import { createClickHouse } from '../stores/clickhouse.ts';
import { requireSameInstance } from '../stores/instance.ts';
import { createPool } from '../stores/postgres.ts';
import { connectRedis, createRedis, requireDurableRedis } from '../stores/redis.ts';

/** A role (api or worker) that runs in this process. */
export interface Running {
  /** Finishes what is under way and closes everything. */
  close(): Promise<void>;
}

/**
 * Starts a role by `start`, which gives all that it opens to the lifecycle. The lifecycle closes it in
 * reverse order: at the end of the role, or at once if `start` fails.
 */
export async function startRole<T extends object>(
  log: Logger,
  start: (lifecycle: Lifecycle) => Promise<T>,
): Promise<T & Running> {
  const lifecycle = new Lifecycle();
  try {
    const started = await start(lifecycle);
    return { ...started, close: () => lifecycle.close() };
  } catch (thrown) {
    await lifecycle.close().catch((err) => log.warn({ err }, 'not everything closed cleanly'));
    throw thrown;
  }
}

/**
 * Opens the stores of one process; `lifecycle` closes them. Both roles make sure that the stores belong to
 * one Core, and that the workers know every stream.
 * @throws CoreError INSTANCE_MISMATCH; MIGRATION_FAILED if the database lacks tables.
 */
export async function openStores(
  config: Config,
  log: Logger,
  lifecycle: Lifecycle,
  poolMax: number,
) {
  const { postgresUrl, redisUrl, clickhouseUrl, redisRequireAof, redisPrefix } = config.stores;
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
  await requireSameInstance(pool, redis, redisPrefix).catch(rethrowUnmigrated);
  await registerStreams(pool, redisPrefix, config.spool.shards).catch(rethrowUnmigrated);
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
