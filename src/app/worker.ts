import type { Redis } from 'ioredis';
import type { Pool } from 'pg';
import { runAuditIfDue } from '../audit/run-audit.ts';
import { createBufferPool } from '../buffer-pool.ts';
import type { Config } from '../config.ts';
import { createFailpoint } from '../failpoints.ts';
import type { Lifecycle } from '../lifecycle.ts';
import type { LoadDeps } from '../load/load-stream.ts';
import { advanceSegmentIds } from '../load/segment-ids.ts';
import { freeStrandedParts } from '../load/stranded-parts.ts';
import { type PeriodicTask, startLoadWorker } from '../load/worker.ts';
import type { Logger } from '../log.ts';
import { followSteadyVersions } from '../nodes/steady-versions.ts';
import { startPresence } from '../presence/presence.ts';
import { startPublisher } from '../publish/publisher.ts';
import { pruneRevisions } from '../publish/revisions.ts';
import { segmentMemory } from '../spool/stream-entries.ts';
import { withTrim } from '../spool/trim.ts';
import { type ClickHouseClient, createClickHouse } from '../stores/clickhouse.ts';
import { createPool } from '../stores/postgres.ts';
import { createReadiness } from '../stores/readiness.ts';
import { expireDue, resetDue } from '../subscriptions/due.ts';
import { pruneEvents } from '../subscriptions/events.ts';
import { webhookTimeoutMs } from '../webhooks/post.ts';
import { openStores, type Running, rethrowUnmigrated, startRole } from './stores.ts';

/** Wrappers of the fault suite, as `ApiSeams` in api.ts. */
export interface WorkerSeams {
  load?: (deps: LoadDeps) => LoadDeps;
}

/** Two for each stream that is loaded at once, also the late one (load/worker.ts); the rest is for upkeep. */
const workerConnectionsMax = 22;
const upkeepEveryMs = 1_000;
const pruneEventsEveryMs = 3_600_000;
const pruneRevisionsEveryMs = 60_000;
const steadyVersionsEveryMs = 60_000;
/** The audit runs daily; after one that failed, this is how soon it runs again. */
const auditCheckMs = 3_600_000;
/** How often the worker looks for parts that no merge reaches, and how old these are at least. */
const strandedSeconds = 600;
/**
 * The worker frees these parts of a month once there are this many. A month with 100 of them has about 500
 * parts in all, and ClickHouse slows inserts down at twice that. Freeing them reads the whole month, so it
 * should be rare.
 */
const strandedPartsMin = 100;
/** An audit reads all rows, and one request of it reads a page of them. */
const auditRequestMs = 600_000;

/** Runs the load worker and its upkeep in this process. */
export async function startWorker(
  config: Config,
  log: Logger,
  seams: WorkerSeams = {},
): Promise<Running> {
  return startRole(log, async (lifecycle) => {
    const { pool, redis, clickhouse } = await openStores(
      config,
      log,
      lifecycle,
      workerConnectionsMax,
    );
    const { redisPrefix: prefix, postgresUrl: databaseUrl, redisUrl } = config.stores;
    await advanceSegmentIds(pool).catch(rethrowUnmigrated);
    const readiness = createReadiness({ pool, redis, clickhouse });
    const presence = await startPresence({ role: 'worker', pool, redis, prefix, readiness, log });
    lifecycle.use('presence', () => presence.close());
    const publishPool = createPool(databaseUrl, { max: 4 });
    lifecycle.use('publish pool', () => publishPool.end());
    const publisher = startPublisher({ pool: publishPool, redis, prefix, databaseUrl, log });
    lifecycle.use('publisher', () => publisher.close());
    const load: LoadDeps = {
      pool,
      clickhouse,
      redis: withTrim(redis),
      buffers: createBufferPool(segmentMemory),
      segmentRowsMax: config.load.segmentRowsMax,
      groupMsMin: config.load.settleMsMin,
      groupBytesMax: config.spool.bytesMax / 4,
      poisonAttempts: config.load.poisonAttempts,
      failpoint: createFailpoint(config.failpointUrl, 'worker'),
    };
    const auditClickhouse = createClickHouse(config.stores.clickhouseUrl, {
      requestTimeoutMs: auditRequestMs,
    });
    lifecycle.use('audit clickhouse', () => auditClickhouse.close());
    const stopAudit = new AbortController();
    const { segmentsKeptDays } = config.load;
    const { signal } = stopAudit;
    const audit = { pool, clickhouse: auditClickhouse, log, signal, segmentsKeptDays };
    const dispatchEvents = await startEvents(config, log, lifecycle, { pool, redis });
    const worker = await startLoadWorker({
      ...(seams.load?.(load) ?? load),
      prefix,
      redisUrl,
      log,
      intervalMs: config.load.intervalMs,
      lateIntervalMs: config.load.lateIntervalMs,
      lateGroupBytesMax: config.spool.lateBytesMax / 4,
      tasks: [
        ...periodicTasks(config, log, { pool, clickhouse }),
        { name: 'dispatch-events', everyMs: upkeepEveryMs, run: dispatchEvents },
        { name: 'audit', everyMs: auditCheckMs, run: () => runAuditIfDue(audit) },
      ],
    });
    lifecycle.use('load worker', () => worker.close());
    // This is closed before the worker waits for its jobs: an audit may take minutes, and runs again.
    lifecycle.use('audit', () => stopAudit.abort());
    return {};
  });
}

/** Upkeep that nothing waits for. */
function periodicTasks(
  config: Config,
  log: Logger,
  { pool, clickhouse }: { pool: Pool; clickhouse: ClickHouseClient },
): PeriodicTask[] {
  return [
    { name: 'expire-due', everyMs: upkeepEveryMs, run: () => expireDue(pool).then(noop) },
    { name: 'reset-due', everyMs: upkeepEveryMs, run: () => resetDue(pool).then(noop) },
    {
      name: 'prune-events',
      everyMs: pruneEventsEveryMs,
      run: () => pruneEvents(pool, config.events).then(noop),
    },
    {
      name: 'follow-steady-versions',
      everyMs: steadyVersionsEveryMs,
      run: () => followSteadyVersions(pool),
    },
    { name: 'prune-revisions', everyMs: pruneRevisionsEveryMs, run: () => pruneRevisions(pool) },
    {
      name: 'free-stranded-parts',
      everyMs: strandedSeconds * 1_000,
      run: async () => {
        const months = await freeStrandedParts(clickhouse, {
          ageSecondsMin: strandedSeconds,
          partsMin: strandedPartsMin,
        });
        if (months.length === 0) return;
        log.info({ months }, 'making rollups for parts that no merge reaches');
      },
    },
  ];
}

/** Starts the webhook if one is set. @returns what the worker does with new events every second. */
async function startEvents(
  config: Config,
  log: Logger,
  lifecycle: Lifecycle,
  { pool, redis }: { pool: Pool; redis: Redis },
): Promise<() => Promise<void>> {
  const { redisUrl, redisPrefix: prefix } = config.stores;
  if (config.events.webhook === undefined) {
    const { dropPendingEvents } = await import('../webhooks/queue.ts');
    const { noteSuccess } = await import('../webhooks/health.ts');
    await noteSuccess(redis, prefix);
    return () => dropPendingEvents(pool);
  }
  const { startWebhook } = await import('../webhooks/worker.ts');
  const target = { ...config.events.webhook, timeoutMs: webhookTimeoutMs };
  const webhook = await startWebhook({ pool, redisUrl, prefix, target, log });
  lifecycle.use('webhook', () => webhook.close());
  return () => webhook.dispatch();
}

function noop(): void {}
