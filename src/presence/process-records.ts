import type { Redis } from 'ioredis';
import type { Queryable } from '../stores/postgres.ts';
import type { StoreName } from '../stores/readiness.ts';

export const roles = ['api', 'worker'] as const;
export type ProcessRole = (typeof roles)[number];

/** What an api or worker process reports of itself every few seconds. Times are ISO 8601. */
export interface ProcessRecord {
  /** A UUID of this run of the process. */
  id: string;
  role: ProcessRole;
  host: string;
  pid: number;
  startedAt: string;
  seenAt: string;
  /** A clean stop sets it. */
  stoppedAt: string | null;
  /** The stores that do not answer it, and since when. */
  storesAway: Partial<Record<StoreName, string>>;
  /** Age of `seenAt`, by the clock of the store that it was read from. */
  seenSecondsAgo: number;
}

/** What a process writes of itself. The store adds the times. */
export type OwnRecord = Pick<ProcessRecord, 'id' | 'role' | 'host' | 'pid' | 'storesAway'> & {
  isStopped: boolean;
};

/** A process counts as running for this long after it was last seen. It writes every five seconds. */
export const seenSecondsMax = 15;
const keptSeconds = 86_400;

function processesKey(prefix: string): string {
  return `${prefix}:processes`;
}

export async function writeToPostgres(db: Queryable, own: OwnRecord): Promise<void> {
  await db.query(
    `INSERT INTO processes (id, role, host, pid, stores_away, stopped_at)
     VALUES ($1, $2, $3, $4, $5, CASE WHEN $6 THEN now() END)
     ON CONFLICT (id) DO UPDATE SET
       seen_at = now(), stores_away = excluded.stores_away, stopped_at = excluded.stopped_at`,
    [own.id, own.role, own.host, own.pid, JSON.stringify(own.storesAway), own.isStopped],
  );
}

/** Called at a start. Removes processes that ended long ago, and former ones of this role on this host. */
export async function sweepPostgres(db: Queryable, own: OwnRecord): Promise<void> {
  await db.query(
    `DELETE FROM processes WHERE seen_at < now() - make_interval(secs => $1)
       OR (role = $2 AND host = $3 AND seen_at < now() - make_interval(secs => $4))`,
    [keptSeconds, own.role, own.host, seenSecondsMax],
  );
}

export async function readFromPostgres(db: Queryable): Promise<ProcessRecord[]> {
  const { rows } = await db.query<
    Omit<ProcessRecord, 'startedAt' | 'seenAt' | 'stoppedAt'> &
      Record<'startedAt' | 'seenAt', Date> & { stoppedAt: Date | null }
  >(
    `SELECT id, role, host, pid, started_at AS "startedAt", seen_at AS "seenAt",
       stopped_at AS "stoppedAt", stores_away AS "storesAway",
       extract(epoch FROM now() - seen_at)::float8 AS "seenSecondsAgo"
     FROM processes ORDER BY role, started_at, id`,
  );
  return rows.map((row) => ({
    ...row,
    startedAt: row.startedAt.toISOString(),
    seenAt: row.seenAt.toISOString(),
    stoppedAt: row.stoppedAt?.toISOString() ?? null,
  }));
}

/** The same in Redis, in case Postgres does not answer. */
export async function writeToRedis(redis: Redis, prefix: string, own: OwnRecord): Promise<void> {
  const key = processesKey(prefix);
  const now = await timeOf(redis);
  const known = parse(await redis.hget(key, own.id));
  const { isStopped, ...rest } = own;
  const record = {
    ...rest,
    startedAt: known?.startedAt ?? now,
    seenAt: now,
    stoppedAt: isStopped ? now : null,
  };
  await redis.hset(key, own.id, JSON.stringify(record));
}

export async function sweepRedis(redis: Redis, prefix: string, own: OwnRecord): Promise<void> {
  const old = (await readFromRedis(redis, prefix)).filter(
    ({ role, host, seenSecondsAgo }) =>
      seenSecondsAgo > keptSeconds ||
      (role === own.role && host === own.host && seenSecondsAgo > seenSecondsMax),
  );
  if (old.length > 0) await redis.hdel(processesKey(prefix), ...old.map(({ id }) => id));
}

export async function readFromRedis(redis: Redis, prefix: string): Promise<ProcessRecord[]> {
  const nowMs = Date.parse(await timeOf(redis));
  const stored = Object.values(await redis.hgetall(processesKey(prefix)));
  return stored
    .flatMap((text) => parse(text) ?? [])
    .map((one) => ({ ...one, seenSecondsAgo: (nowMs - Date.parse(one.seenAt)) / 1_000 }))
    .sort((a, b) => a.startedAt.localeCompare(b.startedAt));
}

type StoredRecord = Omit<ProcessRecord, 'seenSecondsAgo'>;

/** No schema: only Core writes the hash. */
function parse(text: string | null): StoredRecord | undefined {
  return text === null ? undefined : (JSON.parse(text) as StoredRecord);
}

async function timeOf(redis: Redis): Promise<string> {
  const [seconds, microseconds] = await redis.time();
  return new Date(Number(seconds) * 1_000 + Number(microseconds) / 1_000).toISOString();
}
