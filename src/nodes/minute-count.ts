import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';

const windowSeconds = 60;

/**
 * Counts one event under a key in Redis, over all processes. A minute begins with its first event.
 * @returns the events of the minute, this one included, and how many seconds it still lasts, at least 1.
 * @throws CoreError STORE_UNAVAILABLE if Redis refuses to count.
 */
export async function countInMinute(
  redis: Redis,
  key: string,
): Promise<{ count: number; seconds: number }> {
  // Made with its expiry, and in one transaction, so that no counter stays for ever.
  const replies = await redis
    .multi()
    .set(key, '0', 'EX', windowSeconds, 'NX')
    .incr(key)
    .ttl(key)
    .exec();
  const [count, seconds] = [replies?.[1]?.[1], replies?.[2]?.[1]];
  if (typeof count === 'number' && typeof seconds === 'number') {
    return { count, seconds: Math.max(1, seconds) };
  }
  const cause = replies?.find(([error]) => error !== null)?.[0];
  throw new CoreError('STORE_UNAVAILABLE', 'Redis does not count, try again', { cause });
}
