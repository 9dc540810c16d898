import { randomUUID } from 'node:crypto';
import os from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import type pg from 'pg';
import type { Logger } from '../log.ts';
import type { Readiness } from '../stores/readiness.ts';
import {
  type OwnRecord,
  type ProcessRole,
  sweepPostgres,
  sweepRedis,
  writeToPostgres,
  writeToRedis,
} from './process-records.ts';

interface Presence {
  /** Writes that this process has stopped cleanly. */
  close(): Promise<void>;
}

const everyMs = 5_000;
/** A store that does not answer must not hold up a stop. */
const closeMsMax = 1_000;

/**
 * Writes every five seconds that this process runs, and which stores do not answer it, for `core status`.
 * It writes to Postgres and to Redis, because either may be the one that does not answer. Resolves after
 * the first write. It never fails: it only logs a write that fails.
 */
export async function startPresence(options: {
  role: ProcessRole;
  pool: pg.Pool;
  redis: Redis;
  prefix: string;
  readiness: Readiness;
  log: Logger;
}): Promise<Presence> {
  const { role, pool, redis, prefix, readiness, log } = options;
  const own: OwnRecord = {
    id: randomUUID(),
    role,
    host: os.hostname(),
    pid: process.pid,
    storesAway: {},
    isStopped: false,
  };
  const writes = [
    oneAtATime(() => writeToPostgres(pool, own), log),
    oneAtATime(() => writeToRedis(redis, prefix, own), log),
  ];
  const writeAll = () => Promise.all(writes.map((write) => write()));
  const report = async (): Promise<void> => {
    const now = new Date().toISOString();
    const away = await readiness.storesAway();
    own.storesAway = Object.fromEntries(away.map((store) => [store, own.storesAway[store] ?? now]));
    void writeAll();
  };
  await oneAtATime(() => sweepPostgres(pool, own), log)();
  await oneAtATime(() => sweepRedis(redis, prefix, own), log)();
  await writeAll();
  const timer = setInterval(() => void report(), everyMs);
  return {
    async close() {
      clearInterval(timer);
      own.isStopped = true;
      // Twice: the first may only join a write that began before `isStopped` was set.
      const written = writeAll().then(writeAll);
      await Promise.race([written, delay(closeMsMax, undefined, { ref: false })]);
    },
  };
}

/** Starts no second write while one hangs: the call then joins the first one. A failure is only logged. */
function oneAtATime(write: () => Promise<void>, log: Logger): () => Promise<void> {
  let running: Promise<void> | undefined;
  return () => {
    running ??= write()
      .catch((err: unknown) => log.debug({ err }, 'could not write that this process runs'))
      .finally(() => {
        running = undefined;
      });
    return running;
  };
}
