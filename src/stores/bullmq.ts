import type { Queue } from 'bullmq';
import { Redis } from 'ioredis';

/** Prefix of BullMQ's keys. The hash tag keeps them on one node of a Redis Cluster. */
export function bullPrefix(prefix: string): string {
  return `{${prefix}}:bull`;
}

/**
 * A connection that adds jobs to queues. A command fails at once if Redis cannot be reached. Errors of the
 * connection go to `onError`; without a listener they would end the process.
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

/** A connection for BullMQ's workers. They block on it, and it must wait for Redis without a limit. */
export function connectConsumer(redisUrl: string, onError: (error: Error) => void): Redis {
  const connection = new Redis(redisUrl, { maxRetriesPerRequest: null });
  connection.on('error', onError);
  return connection;
}

interface OpenQueue<T> {
  queue: Queue<T>;
  /** The connection of the queue. */
  redis: Redis;
  close(): Promise<void>;
}

/** Opens a queue on a connection of its own. */
export async function openQueue<T>(
  name: string,
  options: { redisUrl: string; prefix: string; onError?: ((error: Error) => void) | undefined },
): Promise<OpenQueue<T>> {
  // BullMQ takes long to load, and an api process needs only the prefix of this file.
  const { Queue } = await import('bullmq');
  // By default errors of the connection are dropped, because a command that fails also rejects.
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
