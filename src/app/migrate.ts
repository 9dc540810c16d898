import type { Config } from '../config.ts';
import { advanceSegmentIds } from '../load/segment-ids.ts';
import type { Logger } from '../log.ts';
import { migrateClickHouse, migratePostgres } from '../stores/migrate.ts';
import { createPool } from '../stores/postgres.ts';

/** Brings both databases to the newest version. Two processes may run it at the same time. */
export async function migrate(config: Config, log: Logger): Promise<void> {
  const pool = createPool(config.stores.postgresUrl, { max: 2 });
  try {
    await migratePostgres(pool, log);
    await advanceSegmentIds(pool);
    await migrateClickHouse(config.stores.clickhouseUrl, pool, log);
  } finally {
    await pool.end();
  }
}
