import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';
import { countInMinute } from './minute-count.ts';

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
      const { count, seconds } = await countInMinute(options.redis, key);
      if (count <= options.reportsMax) return;
      throw new CoreError('RATE_LIMITED', 'Too many error reports of this node in a minute', {
        headers: { 'Retry-After': String(seconds) },
      });
    },
  };
}
