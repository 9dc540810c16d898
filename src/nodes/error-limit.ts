import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';
import { countInWindow } from './window-count.ts';

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
      const { count, seconds } = await countInWindow(options.redis, key, windowSeconds);
      if (count <= options.reportsMax) return;
      throw new CoreError('RATE_LIMITED', 'Too many error reports of this node in a minute', {
        headers: { 'Retry-After': String(seconds) },
      });
    },
  };
}
