import { type Job, Queue, Worker } from 'bullmq';
import { CoreError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { isLateStream, kinds } from '../spool/streams.ts';
import { bullPrefix, connectConsumer, connectProducer, openQueue } from '../stores/bullmq.ts';
import { classifyFailure } from '../stores/failures.ts';
import type { Queryable } from '../stores/postgres.ts';
import { lateLoad } from './late.ts';
import { type LoadDeps, runStream, type StreamRun } from './load-stream.ts';

/** Upkeep that one worker does at a time; `name` is the name of its job. */
export interface PeriodicTask {
  name: string;
  everyMs: number;
  run: () => Promise<void>;
}

interface LoadWorker {
  close(): Promise<void>;
}

interface LoadWorkerOptions extends LoadDeps {
  redisUrl: string;
  prefix: string;
  intervalMs: number;
  /** How often a run of a late stream begins, and the bound of its batches; see late.ts. */
  lateIntervalMs: number;
  lateGroupBytesMax: number;
  /** Upkeep that has to happen once, whichever worker does it. */
  tasks: readonly PeriodicTask[];
  log: Logger;
  /** A clock that never goes back: it says when a failing stream has rested. */
  monotonicMs?: () => number;
}

/** How often a worker looks for new streams. */
const discoverEveryMs = 5_000;
/** How long a stream rests after its run failed. Each further failure doubles that, up to the maximum. */
const restMsMin = 500;
const restMsMax = 15_000;
const streamsAtOnce = 6;
/** Counted apart, so that the long runs of late streams never keep usual streams waiting. */
const lateStreamsAtOnce = 1;
/**
 * If there are more streams than places, a run gives up its place after this many segments. Otherwise
 * it goes on while it finds something: a run that ends waits for its last batch to be settled, and
 * inserts nothing during those seconds.
 */
const segmentsMax = 64;
/**
 * If a worker is killed right after it took a job, the stream's next job is not on the schedule yet. The
 * stream then stands still until another worker finds the job stalled, after these two times together.
 * They can be short, because a job may run twice.
 */
const lockMs = 5_000;
const stalledEveryMs = 2_500;
/** How soon a worker asks Redis for work again after Redis refused; BullMQ would wait 15 s. */
const runRetryMs = 1_000;

interface LoadJob {
  stream: string;
  /** An operator asked for it, so the stream runs even if it rests. */
  force?: boolean;
}

const loadQueueName = 'load';
const lateQueueName = 'load-late';
/** How many finished jobs BullMQ keeps to be shown. */
const finishedJobs = { removeOnComplete: { count: 100 }, removeOnFail: { count: 1_000 } };

/**
 * Runs every stream again and again. BullMQ keeps the schedule, with one job scheduler a stream, so
 * that several workers share the streams. It also shows what runs and what failed. It does not say
 * which work is done: a job may run twice, so only Postgres says that. Late streams have their own
 * queue.
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
    lockDuration: lockMs,
    stalledInterval: stalledEveryMs,
    runRetryDelay: runRetryMs,
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
      // Waits for the running jobs, so a segment that is under way is settled before the process ends.
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
  // The scheduler is left over from another version of Core.
  if (task === undefined) return;
  try {
    await task.run();
  } catch (thrown) {
    const failure = classifyFailure(thrown);
    options.log.warn({ task: name, code: failure.code, err: failure }, 'upkeep failed');
    if (!failure.retryable) throw failure;
  }
}

/** What became of a job: of its run, or that the job left its stream alone. */
type JobOutcome = StreamRun | { outcome: 'resting' | 'running' };

/**
 * Lets a failing stream rest. The schedule goes on meanwhile and a job of a resting stream returns at
 * once; BullMQ's own retries would only pile up on top of the schedule. A failure that a retry cannot
 * fix also fails the job, so BullMQ shows it, like the log and the segment's last error.
 */
function createResting(log: Logger, monotonicMs: () => number) {
  const rests = new Map<string, { untilMs: number; ms: number }>();
  const running = new Set<string>();
  return {
    async run({ stream, force }: LoadJob, work: () => Promise<StreamRun>): Promise<JobOutcome> {
      // A second job of a stream has nothing to do: the first one holds the stream's lock. And if the
      // first one fails, the second would try again before the rest has begun.
      if (running.has(stream)) return { outcome: 'running' };
      const rest = rests.get(stream);
      if (rest !== undefined && monotonicMs() < rest.untilMs && force !== true) {
        return { outcome: 'resting' };
      }
      running.add(stream);
      try {
        const run = await work();
        rests.delete(stream);
        if (run.outcome === 'overtaken') {
          const { segmentIds } = run;
          log.info(
            { stream, segmentIds },
            'another run has settled segments, the next run goes on',
          );
        }
        return run;
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
 * Keeps one job scheduler for each stream and task, and adds those of streams that an api process
 * registers later. Tells `onStreams` how many usual streams there are.
 */
function createDiscovery(
  options: LoadWorkerOptions,
  { loads, lates, upkeep }: Queues,
  onStreams: (count: number) => void,
): { once: () => Promise<void>; stop: () => Promise<void> } {
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
      const template = { name: `${kind}-${shard}`, data: { stream }, opts: finishedJobs };
      await (late ? lates : loads).upsertJobScheduler(id, { every }, template);
    }
    for (const task of options.tasks) {
      if (known.get(task.name) === task.everyMs) continue;
      const template = { name: task.name, data: {}, opts: finishedJobs };
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

/**
 * Adds a job that runs a segment's stream at once, even if the stream rests after a failure. If no worker
 * runs now, the next one that starts takes the job.
 * @throws CoreError NOT_FOUND if there is no such segment, or it is settled.
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
    const job = { stream, force: true };
    await queue.add(`retry-${segmentId}`, job, finishedJobs);
  } finally {
    await close();
  }
  return { segmentId, stream };
}
