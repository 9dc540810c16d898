import { CoreError } from '../errors.ts';
import { isLateStream } from '../spool/streams.ts';
import { openQueue } from '../stores/bullmq.ts';
import type { Queryable } from '../stores/postgres.ts';
import { type LoadJob, lateQueueName, loadQueueName } from './worker.ts';

/**
 * Has a worker try a segment's stream at once, also where it rests after a failure. It is tried
 * where no worker runs, too: as soon as one does.
 * @throws CoreError NOT_FOUND where there is no such segment, or it is settled.
 */
export async function retrySegment(
  deps: { db: Queryable; redisUrl: string; prefix: string },
  segmentId: number,
): Promise<{ segmentId: number; stream: string }> {
  const { rows } = await deps.db.query<{ stream: string }>(
    `SELECT stream FROM segments
     WHERE id = $1 AND state = 'sealed' AND starts_with(stream, $2)`,
    [segmentId, `${deps.prefix}:`],
  );
  const found = rows[0];
  if (found === undefined) {
    throw new CoreError('NOT_FOUND', `There is no segment ${segmentId} that is not settled`);
  }
  const { stream } = found;
  const queueName = isLateStream(stream) ? lateQueueName : loadQueueName;
  const { queue, close } = await openQueue<LoadJob>(queueName, deps);
  try {
    await queue.add(
      `retry-${segmentId}`,
      { stream, force: true },
      { removeOnComplete: { count: 100 }, removeOnFail: { count: 1_000 } },
    );
  } finally {
    await close();
  }
  return { segmentId, stream };
}
