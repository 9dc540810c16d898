import type { Redis } from 'ioredis';
import type pg from 'pg';
import { luaSource } from '../stores/redis.ts';
import { streamKeys } from './streams.ts';

interface TrimCommand {
  coreTrim(
    keys: 3,
    stream: string,
    appended: string,
    trimmed: string,
    minId: string,
    settledBytes: number,
  ): Promise<number>;
}

export type TrimRedis = Redis & TrimCommand;

/** Adds the command of redis/trim.lua to the client. */
export function withTrim(redis: Redis): TrimRedis {
  redis.defineCommand('coreTrim', { lua: luaSource('trim') });
  return redis as TrimRedis;
}

/**
 * Drops the settled stream entries from Redis, and nothing else. Postgres says what is settled, not this
 * run: so the next run also makes up for a trim that a crash has prevented.
 */
export async function trimSettled(
  client: pg.PoolClient,
  redis: TrimRedis,
  stream: string,
): Promise<void> {
  const { rows } = await client.query<{ lastId: string; appendedBytes: number }>(
    `SELECT last_id AS "lastId", appended_bytes AS "appendedBytes" FROM segments
     WHERE stream = $1 AND state = 'settled'
       AND seq < coalesce(
         (SELECT min(seq) FROM segments WHERE stream = $1 AND state = 'sealed'), 9223372036854775807)
     ORDER BY seq DESC LIMIT 1`,
    [stream],
  );
  const settled = rows[0];
  if (settled === undefined) return;
  const keys = streamKeys(stream);
  await redis.coreTrim(
    3,
    keys.stream,
    keys.appended,
    keys.trimmed,
    idAfter(settled.lastId),
    settled.appendedBytes,
  );
}

/** The next id as Redis counts them: `ms-seq` to `ms-(seq+1)`. */
function idAfter(id: string): string {
  const [ms, seq] = id.split('-');
  return `${ms}-${BigInt(seq ?? '0') + 1n}`;
}
