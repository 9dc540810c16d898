import type { Queue } from 'bullmq';
import { Redis } from 'ioredis';

/** Prefix of BullMQ's keys. The hash tag keeps them on one node of a Redis Cluster. */
export function bullPrefix(prefix: string): string {
  return `{${prefix}}:bull`;
}

/**
 * A connection for queues to be filled through: a command fails at once while Redis is away. Its
 * errors go to `onError`; without a listener they would end the process.
 */
export async function connectProducer(
  redisUrl: string,
  onError: (error: Error) => void,
): Promise<Redis> {
  const connection = new Redis(redisUrl, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    lazyConnect: true,
  });
  connection.on('error', onError);
  try {
    await connection.connect();
  } catch (thrown) {
    connection.disconnect();
    throw thrown;
  }
  return connection;
}

/** A connection for BullMQ's workers: they block on it, and want it to wait for Redis for ever. */
export function connectConsumer(redisUrl: string, onError: (error: Error) => void): Redis {
  const connection = new Redis(redisUrl, { maxRetriesPerRequest: null });
  connection.on('error', onError);
  return connection;
}

export interface OpenQueue<T> {
  queue: Queue<T>;
  /** The connection of the queue. */
  redis: Redis;
  close(): Promise<void>;
}

/** Opens one queue on a producer's connection of its own. */
export async function openQueue<T>(
  name: string,
  options: { redisUrl: string; prefix: string; onError?: ((error: Error) => void) | undefined },
): Promise<OpenQueue<T>> {
  // Loaded here only: it takes long, and an api process needs no more of this file than the prefix.
  const { Queue } = await import('bullmq');
  // Without a listener there is nothing to tell: the command that failed rejects.
  const { onError = () => undefined } = options;
  const connection = await connectProducer(options.redisUrl, onError);
  const queue = new Queue<T>(name, { connection, prefix: bullPrefix(options.prefix) });
  queue.on('error', onError);
  return {
    queue,
    redis: connection,
    async close() {
      try {
        await queue.close();
      } finally {
        connection.disconnect();
      }
    },
  };
}
