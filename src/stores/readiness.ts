import type { ClickHouseClient } from '@clickhouse/client';
import type { Redis } from 'ioredis';
import type pg from 'pg';

export const storeNames = ['postgres', 'redis', 'clickhouse'] as const;
export type StoreName = (typeof storeNames)[number];

export interface Readiness {
  /** Names of the stores that do not answer within two seconds. */
  storesAway(): Promise<StoreName[]>;
}

const answerMsMax = 2_000;

export function createReadiness(stores: {
  pool: pg.Pool;
  redis: Redis;
  clickhouse: ClickHouseClient;
}): Readiness {
  const checks = {
    postgres: () => stores.pool.query('SELECT 1'),
    redis: () => stores.redis.ping(),
    clickhouse: async () => {
      const answer = await stores.clickhouse.ping();
      if (!answer.success) throw answer.error;
    },
  };
  return {
    async storesAway() {
      const answers = await Promise.all(storeNames.map((name) => answersInTime(checks[name])));
      return storeNames.filter((_, index) => answers[index] !== true);
    },
  };
}

async function answersInTime(check: () => Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), answerMsMax);
  });
  const answered = check().then(
    () => true,
    () => false,
  );
  const result = await Promise.race([answered, late]);
  clearTimeout(timer);
  return result;
}
