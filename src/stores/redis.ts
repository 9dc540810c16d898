import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Redis } from 'ioredis';
import { CoreError, messageOf } from '../errors.ts';
import { projectRoot } from '../root.ts';

/**
 * A client that fails at once if Redis cannot be reached, and queues no commands in memory. So the caller
 * answers 503, and the process holds nothing that a crash would lose.
 */
export function createRedis(
  url: string,
  options: {
    connectTimeoutMs?: number;
    commandTimeoutMs?: number;
    onError?: (e: Error) => void;
  } = {},
): Redis {
  const redis = new Redis(url, {
    enableOfflineQueue: false,
    lazyConnect: true,
    maxRetriesPerRequest: 0,
    connectTimeout: options.connectTimeoutMs ?? 5_000,
    commandTimeout: options.commandTimeoutMs ?? 10_000,
    retryStrategy: (attempt) => Math.min(50 * attempt, 1_000),
  });
  // Without a listener ioredis prints to the console. The caller of a command gets the error in any case.
  redis.on('error', (error: Error) => options.onError?.(error));
  return redis;
}

/** @throws CoreError STORE_UNAVAILABLE with one clear line. */
export async function connectRedis(redis: Redis): Promise<void> {
  try {
    await redis.connect();
    await redis.ping();
  } catch (cause) {
    redis.disconnect();
    throw new CoreError('STORE_UNAVAILABLE', `Redis cannot be reached: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/**
 * Makes sure that Redis fsyncs before it answers and never evicts keys, since each 200 depends on both.
 * @throws CoreError REDIS_NOT_DURABLE naming each setting that is wrong.
 */
export async function requireDurableRedis(redis: Redis): Promise<void> {
  const wanted: Record<string, string> = {
    appendonly: 'yes',
    appendfsync: 'always',
    'maxmemory-policy': 'noeviction',
  };
  const wrong: string[] = [];
  for (const [name, value] of Object.entries(wanted)) {
    const reply = (await redis.config('GET', name)) as string[];
    const actual = reply[1] ?? 'unknown';
    if (actual !== value) wrong.push(`${name} is ${actual}, must be ${value}`);
  }
  if (wrong.length === 0) return;
  throw new CoreError(
    'REDIS_NOT_DURABLE',
    `Redis would lose acknowledged rows: ${wrong.join('; ')}. Set them in redis.conf, or set CORE_REDIS_REQUIRE_AOF=false to accept the loss`,
  );
}

/** Source of redis/<name>.lua. */
export function luaSource(name: string): string {
  return readFileSync(path.join(projectRoot, 'redis', `${name}.lua`), 'utf8');
}
