import type { Test } from 'tap';
import { startWorker } from '../../src/app/worker.ts';
import { startLoadWorker } from '../../src/load/worker.ts';
import { type ClickHouseClient, createClickHouse } from '../../src/stores/clickhouse.ts';
import { migrateClickHouse } from '../../src/stores/migrate.ts';
import type { TestApi } from './api.ts';
import type { startSpool } from './spool.ts';

/** Starts a worker in this process, on the stores of an api. @returns a client of their ClickHouse. */
export async function startTestWorker(
  t: Test,
  { config, pool, log }: Pick<TestApi, 'config' | 'pool' | 'log'>,
): Promise<ClickHouseClient> {
  await migrateClickHouse(config.stores.clickhouseUrl, pool, log);
  const clickhouse = createClickHouse(config.stores.clickhouseUrl);
  t.teardown(() => clickhouse.close());
  const worker = await startWorker(config, log);
  t.teardown(() => worker.close());
  return clickhouse;
}

/**
 * Starts only the load of a worker, on the stores of a spool. Its clock stands still, so the rest of a
 * stream after a failure does not end by itself.
 */
export async function startLoadWithStoppedClock(
  t: Test,
  load: Awaited<ReturnType<typeof startSpool>>,
  options: Partial<Pick<Parameters<typeof startLoadWorker>[0], 'redis' | 'log'>> = {},
): Promise<void> {
  const worker = await startLoadWorker({
    ...load.deps,
    redisUrl: load.redisUrl,
    prefix: load.redisPrefix,
    intervalMs: 50,
    lateIntervalMs: 50,
    lateGroupBytesMax: 1e8,
    tasks: [],
    log: load.log,
    monotonicMs: () => 0,
    ...options,
  });
  t.teardown(() => worker.close());
}
