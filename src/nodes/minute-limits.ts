import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';

const windowSeconds = 60;
/** How many locked-out addresses a process remembers. */
const lockedOutMax = 10_000;

/**
 * Limits how many failed registrations one address may make in a minute, over all processes. Only
 * failures count, and a right code always works: a code has 100 random bits, so nobody finds one by
 * guessing, and other callers may share the address.
 */
export interface RegistrationLimit {
  /**
   * Counts a failed registration. For an address that is locked out already it does not ask Redis.
   * @throws CoreError RATE_LIMITED with Retry-After if the address is over its limit.
   */
  recordFailure(address: string): Promise<void>;
}

export function createRegistrationLimit(options: {
  redis: Redis;
  prefix: string;
  failuresMax: number;
}): RegistrationLimit {
  /** By address: until when, on the monotonic clock. */
  const lockedOutUntilMs = new Map<string, number>();
  return {
    async recordFailure(address) {
      const untilMs = lockedOutUntilMs.get(address);
      if (untilMs !== undefined && performance.now() < untilMs) {
        throw tooManyFailures(untilMs - performance.now());
      }
      lockedOutUntilMs.delete(address);
      const key = `${options.prefix}:register:${address}`;
      const { count, secondsLeft } = await countInMinute(options.redis, key);
      if (count <= options.failuresMax) return;
      lockedOutUntilMs.set(address, performance.now() + secondsLeft * 1_000);
      // Redis still knows the address that is forgotten here.
      const [longest] = lockedOutUntilMs.keys();
      if (lockedOutUntilMs.size > lockedOutMax && longest !== undefined) {
        lockedOutUntilMs.delete(longest);
      }
      throw tooManyFailures(secondsLeft * 1_000);
    },
  };
}

function tooManyFailures(waitMs: number): CoreError {
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  return new CoreError('RATE_LIMITED', 'Too many failed registrations from this address', {
    headers: { 'Retry-After': String(seconds) },
  });
}

/**
 * Limits how many errors a node may report in a minute, over all processes. Each report is a
 * transaction in Postgres, and a node in a restart loop reports as fast as it can.
 */
export interface ErrorLimit {
  /** Counts a report. @throws CoreError RATE_LIMITED with Retry-After if the node is over its limit. */
  count(nodeId: number): Promise<void>;
}

export function createErrorLimit(options: {
  redis: Redis;
  prefix: string;
  reportsMax: number;
}): ErrorLimit {
  return {
    async count(nodeId) {
      const key = `${options.prefix}:errors:${nodeId}`;
      const { count, secondsLeft } = await countInMinute(options.redis, key);
      if (count <= options.reportsMax) return;
      throw new CoreError('RATE_LIMITED', 'This node reports too many errors in a minute', {
        headers: { 'Retry-After': String(secondsLeft) },
      });
    },
  };
}

/**
 * Counts one event under a key in Redis. A minute begins with its first event.
 * @returns the events of the minute, with this one, and its remaining seconds, at least 1.
 * @throws CoreError STORE_UNAVAILABLE if Redis refuses to count.
 */
async function countInMinute(
  redis: Redis,
  key: string,
): Promise<{ count: number; secondsLeft: number }> {
  // One transaction sets the expiry and counts, so that no counter stays in Redis for ever.
  const replies = await redis
    .multi()
    .set(key, '0', 'EX', windowSeconds, 'NX')
    .incr(key)
    .ttl(key)
    .exec();
  const [count, secondsLeft] = [replies?.[1]?.[1], replies?.[2]?.[1]];
  if (typeof count === 'number' && typeof secondsLeft === 'number') {
    return { count, secondsLeft: Math.max(1, secondsLeft) };
  }
  const cause = replies?.find(([error]) => error !== null)?.[0];
  throw new CoreError('STORE_UNAVAILABLE', 'Redis refused to count; try again', { cause });
}
