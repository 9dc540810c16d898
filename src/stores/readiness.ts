import type { ClickHouseClient } from '@clickhouse/client';
import type { Redis } from 'ioredis';
import type pg from 'pg';

export const storeNames = ['postgres', 'redis', 'clickhouse'] as const;
export type StoreName = (typeof storeNames)[number];

export interface Readiness {
  /** Names of the stores that do not answer within two seconds. */
  storesAway(): Promise<StoreName[]>;
  /**
   * Whether every store answered, at most a second ago. Each process asks the stores at most once a second,
   * however many callers there are.
   */
  areAllThere(): Promise<boolean>;
}

const answerMsMax = 2_000;
const keptMs = 1_000;

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
  const storesAway = async (): Promise<StoreName[]> => {
    const answers = await Promise.all(storeNames.map((name) => answersInTime(checks[name])));
    return storeNames.filter((_, index) => answers[index] !== true);
  };
  let last: Promise<boolean> | undefined;
  let goodUntilMs = 0;
  return {
    storesAway,
    areAllThere() {
      if (last !== undefined && performance.now() < goodUntilMs) return last;
      // While the stores are being asked, all callers wait for the same answer: two seconds if a store hangs.
      goodUntilMs = Number.POSITIVE_INFINITY;
      last = storesAway().then((away) => {
        goodUntilMs = performance.now() + keptMs;
        return away.length === 0;
      });
      return last;
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
