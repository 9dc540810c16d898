import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';

const windowSeconds = 60;

/**
 * Bounds how many error reports a node may make in a minute, over all processes: each is a transaction
 * in Postgres, and a node in a restart loop makes them as fast as it can.
 */
export interface ErrorLimit {
  /** Counts a report. @throws CoreError RATE_LIMITED with Retry-After if it is one too many. */
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
      // Made with its expiry, and in one transaction, so that no counter stays for ever.
      const replies = await options.redis
        .multi()
        .set(key, '0', 'EX', windowSeconds, 'NX')
        .incr(key)
        .ttl(key)
        .exec();
      const [reports, seconds] = [replies?.[1]?.[1], replies?.[2]?.[1]];
      if (typeof reports !== 'number' || typeof seconds !== 'number') {
        const cause = replies?.find(([error]) => error !== null)?.[0];
        throw new CoreError('STORE_UNAVAILABLE', 'Redis does not count error reports', { cause });
      }
      if (reports <= options.reportsMax) return;
      throw new CoreError('RATE_LIMITED', 'Too many error reports of this node in a minute', {
        headers: { 'Retry-After': String(Math.max(1, seconds)) },
      });
    },
  };
}
