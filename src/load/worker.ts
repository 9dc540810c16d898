import { type Job, Queue, Worker } from 'bullmq';
import type { Logger } from '../log.ts';
import { isLateStream, kinds } from '../spool/streams.ts';
import { bullPrefix } from '../stores/bull-prefix.ts';
import { connectConsumer, connectProducer } from '../stores/bullmq.ts';
import { classifyFailure } from '../stores/failures.ts';
import { lateLoad } from './late.ts';
import { type LoadDeps, runStream } from './load-stream.ts';

/** Job name and what it does at each turn. */
export interface PeriodicTask {
  name: string;
  everyMs: number;
  run: () => Promise<void>;
}

export interface LoadWorker {
  close(): Promise<void>;
}

export interface LoadWorkerOptions extends LoadDeps {
  redisUrl: string;
  prefix: string;
  intervalMs: number;
  /** How often late streams are looked at, and the bound of their groups; see late.ts. */
  lateIntervalMs: number;
  lateGroupBytesMax: number;
  /** Upkeep of nodes and subscriptions that has to happen once, whichever worker does it. */
  tasks: readonly PeriodicTask[];
  log: Logger;
  /** A clock that never goes back, for the rests of failing streams. */
  monotonicMs?: () => number;
}

/** How often a worker looks for streams that are new. */
const discoverEveryMs = 5_000;
/** A stream whose run failed rests this long at first, doubling up to the maximum. */
const restMsMin = 500;
const restMsMax = 15_000;
const streamsAtOnce = 6;
/** Late streams have a place of their own, so that their long runs take none from the others. */
const lateStreamsAtOnce = 1;
/**
 * Where there are more streams than that, a run gives its place up after this many segments. Where not
 * it goes on for as long as there is something: ending it means to wait for its last group, seconds
 * in which nothing would be inserted.
 */
const segmentsMax = 64;
/**
 * A worker that is killed right after it took a job has not yet put the stream's next one on the
 * schedule: the stream stands still until another worker finds the job stalled, which takes these
 * two times together. Short is safe, since a job may run twice.
 */
const lockDuration = 5_000;
const stalledInterval = 2_500;
/** How soon a worker asks Redis for work again after Redis refused; BullMQ's own wait is 15 s. */
const runRetryDelay = 1_000;

export interface LoadJob {
  stream: string;
  /** Asked for by an operator: a stream that rests is run all the same. */
  force?: boolean;
}

export const loadQueueName = 'load';
export const lateQueueName = 'load-late';

/**
 * Runs every stream again and again. BullMQ carries the schedule (one job scheduler a stream, so
 * several workers share the streams out) and shows what runs and what failed; which work is done
 * Postgres alone says, because a job may run twice. Late streams have a queue of their own.
 */
export async function startLoadWorker(options: LoadWorkerOptions): Promise<LoadWorker> {
  const { log } = options;
  const prefix = bullPrefix(options.prefix);
  const onRedisError = (err: Error): void => log.debug({ err }, 'redis');
  const producer = await connectProducer(options.redisUrl, onRedisError);
  const consumer = connectConsumer(options.redisUrl, onRedisError);

  const queues: Queues = {
    loads: new Queue<LoadJob>(loadQueueName, { connection: producer, prefix }),
    lates: new Queue<LoadJob>(lateQueueName, { connection: producer, prefix }),
    upkeep: new Queue('upkeep', { connection: producer, prefix }),
  };
  const common = {
    connection: consumer,
    prefix,
    maxStalledCount: 1_000,
    lockDuration,
    stalledInterval,
    runRetryDelay,
  };
  const resting = createResting(log, options.monotonicMs ?? (() => performance.now()));
  const stopping = new AbortController();
  let streams = 0;
  const goesOn = (segments: number): boolean =>
    !stopping.signal.aborted && (segments < segmentsMax || streams <= streamsAtOnce);
  const loadWorker = (name: string, load: LoadDeps, concurrency: number) =>
    new Worker<LoadJob>(
      name,
      (job: Job<LoadJob>) => resting.run(job.data, () => runStream(load, job.data.stream)),
      { ...common, concurrency },
    );
  const workers = [
    loadWorker(loadQueueName, { ...options, goesOn }, streamsAtOnce),
    loadWorker(lateQueueName, lateLoad(options, stopping.signal), lateStreamsAtOnce),
    new Worker('upkeep', (job: Job) => runTask(options, job.name), { ...common, concurrency: 2 }),
  ];
  const onError = (err: Error): void => log.debug({ err }, 'bullmq');
  for (const queue of Object.values(queues)) queue.on('error', onError);
  for (const worker of workers) {
    worker.on('error', onError);
    worker.on('failed', (job, err) => log.error({ job: job?.name, err }, 'job failed'));
  }

  const discover = createDiscovery(options, queues, (count) => {
    streams = count;
  });
  await discover.once();
  return {
    async close() {
      stopping.abort();
      await discover.stop();
      // Waits for the running jobs: a segment under way is settled before the process ends.
      await Promise.all(workers.map((worker) => worker.close()));
      await Promise.all(Object.values(queues).map((queue) => queue.close()));
      producer.disconnect();
      consumer.disconnect();
    },
  };
}

interface Queues {
  loads: Queue<LoadJob>;
  lates: Queue<LoadJob>;
  upkeep: Queue;
}

async function runTask(options: LoadWorkerOptions, name: string): Promise<void> {
  const task = options.tasks.find((candidate) => candidate.name === name);
  // A scheduler left over from another version of Core: nothing to do.
  if (task === undefined) return;
  try {
    await task.run();
  } catch (thrown) {
    const failure = classifyFailure(thrown);
    options.log.warn({ task: name, code: failure.code, err: failure }, 'upkeep failed');
    if (!failure.retryable) throw failure;
  }
}

/**
 * Rests a failing stream. The schedule goes on, so BullMQ's own retries would only pile up: while a
 * store is away every run returns at once until the stream's rest is over. A failure that a repeat
 * cannot mend fails the job, and shows there, besides the log and the segment's last error.
 */
function createResting(log: Logger, monotonicMs: () => number) {
  const rests = new Map<string, { untilMs: number; ms: number }>();
  const running = new Set<string>();
  return {
    async run<T>(
      { stream, force }: LoadJob,
      work: () => Promise<T>,
    ): Promise<T | { outcome: 'resting' | 'running' }> {
      // A second job of the stream would only wait for its lock, and after a failure try again
      // before the rest has begun.
      if (running.has(stream)) return { outcome: 'running' };
      const rest = rests.get(stream);
      if (rest !== undefined && monotonicMs() < rest.untilMs && force !== true) {
        return { outcome: 'resting' };
      }
      running.add(stream);
      try {
        const result = await work();
        rests.delete(stream);
        return result;
      } catch (thrown) {
        const failure = classifyFailure(thrown);
        const ms = Math.min(restMsMax, (rest?.ms ?? restMsMin / 2) * 2);
        rests.set(stream, { untilMs: monotonicMs() + ms, ms });
        log.warn(
          { stream, code: failure.code, err: failure, restMs: ms },
          'stream failed, resting',
        );
        if (failure.retryable) return { outcome: 'resting' };
        throw failure;
      } finally {
        running.delete(stream);
      }
    },
  };
}

/**
 * Keeps one job scheduler a stream and task, also for streams that an api registers later. `onStreams` is
 * told how many usual streams there are.
 */
function createDiscovery(
  options: LoadWorkerOptions,
  { loads, lates, upkeep }: Queues,
  onStreams: (count: number) => void,
): { once: () => Promise<void>; stop: () => Promise<void> } {
  const keep = { removeOnComplete: { count: 100 }, removeOnFail: { count: 1_000 } };
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();
  let stopped = false;

  const once = async (): Promise<void> => {
    const schedulers = await Promise.all(
      [loads, lates, upkeep].map((queue: Queue) => queue.getJobSchedulers()),
    );
    const known = new Map(schedulers.flat().map((s) => [s.key, Number(s.every)]));
    const { rows } = await options.pool.query<{ stream: string; kind: string; shard: number }>(
      'SELECT stream, kind, shard FROM streams WHERE starts_with(stream, $1) ORDER BY stream',
      [`${options.prefix}:`],
    );
    onStreams(rows.filter(({ stream }) => !isLateStream(stream)).length);
    for (const { stream, kind, shard } of rows) {
      const late = isLateStream(stream);
      const id = `${late ? 'late' : 'load'}-${kind}-${shard}`;
      const every = late ? options.lateIntervalMs : options.intervalMs;
      if (known.get(id) === every || !kinds.some((k) => k === kind)) continue;
      const template = { name: `${kind}-${shard}`, data: { stream }, opts: keep };
      await (late ? lates : loads).upsertJobScheduler(id, { every }, template);
    }
    for (const task of options.tasks) {
      if (known.get(task.name) === task.everyMs) continue;
      const template = { name: task.name, data: {}, opts: keep };
      await upkeep.upsertJobScheduler(task.name, { every: task.everyMs }, template);
    }
  };
  const again = (): void => {
    timer = setTimeout(() => {
      running = once()
        .catch((err) => options.log.warn({ err }, 'could not look for new streams'))
        .then(() => {
          if (!stopped) again();
        });
    }, discoverEveryMs);
  };
  again();
  return {
    once,
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}
