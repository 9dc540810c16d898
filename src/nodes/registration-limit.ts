import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';

const windowSeconds = 60;

/**
 * Bounds how many failed registrations one address may make in a minute, over all processes. Only
 * failures count, so that a whole fleet behind one address can register at once.
 */
export interface RegistrationLimit {
  /** @throws CoreError RATE_LIMITED with Retry-After where the address has used up its failures. */
  check(address: string): Promise<void>;
  recordFailure(address: string): Promise<void>;
}

export function createRegistrationLimit(options: {
  redis: Redis;
  prefix: string;
  failuresMax: number;
}): RegistrationLimit {
  const keyOf = (address: string): string => `${options.prefix}:register:${address}`;
  return {
    async check(address) {
      const key = keyOf(address);
      const failures = Number((await options.redis.get(key)) ?? '0');
      if (failures < options.failuresMax) return;
      const seconds = Math.max(1, await options.redis.ttl(key));
      throw new CoreError('RATE_LIMITED', 'Too many failed registrations from this address', {
        headers: { 'Retry-After': String(seconds) },
      });
    },
    async recordFailure(address) {
      const key = keyOf(address);
      // Created with its expiry first, so that a crash between the two leaves no immortal counter.
      await options.redis.set(key, '0', 'EX', windowSeconds, 'NX');
      await options.redis.incr(key);
    },
  };
}
