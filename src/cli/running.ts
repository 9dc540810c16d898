import type { Redis } from 'ioredis';
import type pg from 'pg';
import { CoreError } from '../errors.ts';
import {
  type ProcessRecord,
  type ProcessRole,
  readFromPostgres,
  readFromRedis,
  roles,
  seenSecondsMax,
} from '../presence/process-records.ts';
import { type StoreName, storeNames } from '../stores/readiness.ts';
import type { CliContext } from './context.ts';

interface RunningProcess {
  host: string;
  pid: number;
  /** `lost`: it ended without recording that, or its host is cut off. */
  state: 'running' | 'lost' | 'stopped';
  /** When a running process was started; when any other was last seen. */
  since: string;
}

interface RunningStore {
  up: boolean;
  /** Since when the store has not answered a process of Core; null if it answers or nobody knows. */
  since: string | null;
  /** Why this command cannot use the store; null if it can. */
  reason: string | null;
}

/** What runs. A role is null if Postgres and Redis are both away, since nobody knows then. */
export type RunningParts = Record<ProcessRole, RunningProcess[] | null> &
  Record<StoreName, RunningStore>;

export const parts = [...roles, ...storeNames] as const;
export type Part = (typeof parts)[number];

/** What runs, and the stores that answer this command. */
export interface Found {
  pool: pg.Pool | undefined;
  redis: Redis | undefined;
  running: RunningParts;
}

/**
 * Asks every store whether it answers. Postgres says which processes of Core run, or Redis if Postgres is
 * away.
 */
export async function findRunning(context: CliContext): Promise<Found> {
  const [postgres, redis, clickhouse] = await Promise.all([
    unlessAway(context.postgres()),
    unlessAway(context.redis()),
    unlessAway(context.clickhouse()),
  ]);
  const records = await readRecords(context, postgres.value, redis.value);
  const store = (name: StoreName, asked: Asked<unknown>): RunningStore => ({
    up: asked.reason === null,
    since: asked.reason === null ? null : awaySince(name, records ?? []),
    reason: asked.reason,
  });
  return {
    pool: postgres.value,
    redis: redis.value,
    running: {
      api: records && processesOf('api', records),
      worker: records && processesOf('worker', records),
      postgres: store('postgres', postgres),
      redis: store('redis', redis),
      clickhouse: store('clickhouse', clickhouse),
    },
  };
}

/** The parts of Core that do not run, or that nobody knows to run. */
export function missingParts(running: RunningParts): Part[] {
  return parts.filter((part) => {
    if (part !== 'api' && part !== 'worker') return !running[part].up;
    return running[part]?.some(({ state }) => state === 'running') !== true;
  });
}

interface Asked<T> {
  value: T | undefined;
  reason: string | null;
}

async function unlessAway<T>(asked: Promise<T>): Promise<Asked<T>> {
  try {
    return { value: await asked, reason: null };
  } catch (thrown) {
    if (!(thrown instanceof CoreError) || thrown.code !== 'STORE_UNAVAILABLE') throw thrown;
    return { value: undefined, reason: thrown.message };
  }
}

async function readRecords(
  context: CliContext,
  pool: pg.Pool | undefined,
  redis: Redis | undefined,
): Promise<ProcessRecord[] | null> {
  if (pool !== undefined) return readFromPostgres(pool);
  if (redis !== undefined) return readFromRedis(redis, context.config.stores.redisPrefix);
  return null;
}

/** Since when the store has not answered some running process. */
function awaySince(store: StoreName, records: readonly ProcessRecord[]): string | null {
  const told = records
    .filter((record) => stateOf(record) === 'running')
    .flatMap(({ storesAway }) => storesAway[store] ?? []);
  return told.sort()[0] ?? null;
}

function stateOf({ stoppedAt, seenSecondsAgo }: ProcessRecord): RunningProcess['state'] {
  if (stoppedAt !== null) return 'stopped';
  return seenSecondsAgo <= seenSecondsMax ? 'running' : 'lost';
}

/**
 * The processes that run and those that were lost. If there are none, the one that was stopped last. A
 * process that was started again on its host does not count as lost.
 */
function processesOf(role: ProcessRole, records: readonly ProcessRecord[]): RunningProcess[] {
  const own = records.filter((record) => record.role === role);
  const isReplaced = (record: ProcessRecord): boolean =>
    own.some((other) => other.host === record.host && other.startedAt > record.startedAt);
  const shown = own.filter((record) => {
    const state = stateOf(record);
    return state === 'running' || (state === 'lost' && !isReplaced(record));
  });
  const stopped = own.filter((record) => stateOf(record) === 'stopped');
  const last = stopped.sort((a, b) => a.seenAt.localeCompare(b.seenAt)).at(-1);
  if (shown.length === 0 && last !== undefined) shown.push(last);
  return shown.map((record) => {
    const state = stateOf(record);
    const { host, pid, startedAt, seenAt } = record;
    return { host, pid, state, since: state === 'running' ? startedAt : seenAt };
  });
}
