import type { Redis } from 'ioredis';
import { CoreError } from '../errors.ts';
import { numberedKey } from './streams.ts';

/** What has come of a stream of posts that a node numbers. */
export interface NumberedStream {
  /** The UUID in `x-node-stream`. */
  stream: string;
  /** The greatest `x-node-sequence` that has come. */
  greatest: number;
  /** Numbers below the greatest that have not come. */
  missing: number;
  /** The same as ranges, in ascending order. At most postGapsMax. */
  gaps: { first: number; last: number }[];
  /** The last post came after this, and within half of CORE_IDEMPOTENCY_SECONDS of it. */
  lastPostAfter: Date;
}

/** All numbered streams of a node, the one with the newest post first. At most postStreamsMax. */
export async function listNumberedStreams(
  redis: Redis,
  prefix: string,
  nodeId: number,
): Promise<NumberedStream[]> {
  const states = await redis.hgetall(`${numberedKey(prefix)}:${nodeId}`);
  const streams = Object.entries(states).map(([stream, state]) => streamOf(stream, state));
  return streams.sort((a, b) => b.lastPostAfter.getTime() - a.lastPostAfter.getTime());
}

/**
 * Forgets a stream, so that the node has room for another one. A repeat of a post of it counts again.
 * @throws CoreError NOT_FOUND.
 */
export async function forgetNumberedStream(
  redis: Redis,
  prefix: string,
  nodeId: number,
  stream: string,
): Promise<void> {
  if ((await redis.hdel(`${numberedKey(prefix)}:${nodeId}`, stream)) === 0) {
    throw new CoreError('NOT_FOUND', `Node ${nodeId} has no stream ${stream}`);
  }
}

/** Reads a state as redis/append.lua writes it. */
function streamOf(stream: string, state: string): NumberedStream {
  const [greatest, , , lastTime, , ranges = ''] = state.split(' ');
  const gaps = ranges
    .split(',')
    .filter((range) => range !== '')
    .map((range) => range.split('-').map(Number))
    .map(([first = 0, last = 0]) => ({ first, last }));
  const missing = gaps.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  const lastPostAfter = new Date(Number(lastTime) * 1_000);
  return { stream, greatest: Number(greatest), missing, gaps, lastPostAfter };
}
