import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';
import { countInMinute } from './minute-count.ts';

/** Past this many the one that has been locked out longest is looked up in Redis again. */
const lockedOutMax = 10_000;

/**
 * Bounds how many failed registrations one address may make in a minute, over all processes. Only
 * failures count, and only they are refused: a code has 100 bits, so that nobody finds one by guessing,
 * and a right one is good however many wrong ones came from the same address before.
 */
export interface RegistrationLimit {
  /**
   * Counts a failed registration. An address that is locked out already costs nothing here.
   * @throws CoreError RATE_LIMITED with Retry-After if the address has used up its failures.
   */
  recordFailure(address: string): Promise<void>;
}

export function createRegistrationLimit(options: {
  redis: Redis;
  prefix: string;
  failuresMax: number;
}): RegistrationLimit {
  /** By address: until when, on the monotonic clock. */
  const lockedOut = new Map<string, number>();
  return {
    async recordFailure(address) {
      const untilMs = lockedOut.get(address);
      if (untilMs !== undefined && performance.now() < untilMs) throw rateLimited(untilMs);
      lockedOut.delete(address);
      const key = `${options.prefix}:register:${address}`;
      const { count, seconds } = await countInMinute(options.redis, key);
      if (count <= options.failuresMax) return;
      const nextMs = performance.now() + seconds * 1_000;
      lockedOut.set(address, nextMs);
      const [longest] = lockedOut.keys();
      if (lockedOut.size > lockedOutMax && longest !== undefined) lockedOut.delete(longest);
      throw rateLimited(nextMs);
    },
  };
}

function rateLimited(untilMs: number): CoreError {
  const seconds = Math.max(1, Math.ceil((untilMs - performance.now()) / 1_000));
  return new CoreError('RATE_LIMITED', 'Too many failed registrations from this address', {
    headers: { 'Retry-After': String(seconds) },
  });
}
