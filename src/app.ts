import type { Redis } from 'ioredis';
import type { Pool } from 'pg';
import { runAuditIfDue } from './audit/run-audit.ts';
import { createBufferPool } from './buffer-pool.ts';
import type { Config } from './config.ts';
import { ingestSchemas } from './contract/node.ts';
import { CoreError } from './errors.ts';
import { createFailpoint } from './failpoints.ts';
import { configAppliedRoute } from './http/routes/config-applied.ts';
import { configLatestRoute } from './http/routes/config-latest.ts';
import { healthzRoute, readyzInFullRoute, readyzRoute } from './http/routes/health.ts';
import { heartbeatRoute } from './http/routes/heartbeat.ts';
import { outboundUsageRoute, sessionEventsRoute, usageRoute } from './http/routes/ingest.ts';
import { metricsRoute } from './http/routes/metrics.ts';
import { nodeErrorRoute } from './http/routes/node-error.ts';
import { registerRoute } from './http/routes/register.ts';
import { createHttpServer, type HttpServer } from './http/server.ts';
import { createLargeBodies } from './ingest/large-bodies.ts';
import { createSpool, type Spool } from './ingest/spool.ts';
import { registerStreams } from './ingest/streams.ts';
import { createUsageScanner } from './ingest/usage-scanner.ts';
import { Lifecycle } from './lifecycle.ts';
import { segmentMemory } from './load/entries.ts';
import type { LoadDeps } from './load/run-stream.ts';
import { freeStrandedParts } from './load/stranded-parts.ts';
import { withTrim } from './load/trim.ts';
import type { PeriodicTask } from './load/worker.ts';
import type { Logger } from './log.ts';
import { createNodeDirectory, type NodeDirectory } from './nodes/directory.ts';
import { createErrorLimit } from './nodes/error-limit.ts';
import { createHeartbeats } from './nodes/heartbeat.ts';
import { createRegistrationLimit } from './nodes/registration-limit.ts';
import { pruneRevisions } from './nodes/revisions.ts';
import { createConfigCache } from './render/config-cache.ts';
import { startPublisher } from './render/publisher.ts';
import { type ClickHouseClient, createClickHouse } from './stores/clickhouse.ts';
import { requireSameInstance } from './stores/instance.ts';
import { migrateClickHouse, migratePostgres } from './stores/migrate.ts';
import { createPool } from './stores/postgres.ts';
import { startPresence } from './stores/presence.ts';
import { createReadiness, type Readiness } from './stores/readiness.ts';
import { connectRedis, createRedis, requireDurableRedis } from './stores/redis.ts';
import { pruneEvents } from './subscriptions/events.ts';
import { expireDue } from './subscriptions/expire.ts';
import { resetDue } from './subscriptions/reset.ts';
import { webhookTimeoutMs } from './webhooks/queue.ts';

/** Something that runs until it is closed. */
export interface Running {
  /** Finishes what is under way and gives everything back. */
  close(): Promise<void>;
}

/**
 * What the fault suite may put around parts of Core, to take one protection away and see that its
 * oracle notices. No setting reaches these: they are parameters, and Core itself passes none.
 */
export interface ApiSeams {
  spool?: (spool: Spool) => Spool;
}
export interface WorkerSeams {
  load?: (deps: LoadDeps) => LoadDeps;
}

/** Two for each stream that is loaded at once, a late one included (load/worker.ts), some for the upkeep. */
const workerConnectionsMax = 22;
const heartbeatFlushMs = 1_000;
const upkeepEveryMs = 1_000;
const pruneEventsEveryMs = 3_600_000;
const pruneRevisionsEveryMs = 60_000;
/** The audit runs daily; this is how soon one that failed is made up for. */
const auditCheckMs = 3_600_000;
/** How often parts that no merge reaches are looked for, and how long one has to have lain there. */
const strandedSeconds = 600;
/**
 * So many make 500 parts or so in a month, half of what ClickHouse begins to slow inserts at; and the
 * reading of a whole month that frees them stays rare.
 */
const strandedPartsMin = 100;
/** An audit reads all rows, a page at a time. */
const auditRequestMs = 600_000;
/** What is kept back from the stop deadline for closing the stores after the last answer. */
const closeReserveMs = 2_000;
/** A scrape that takes longer may be cut off by a stop. */
const adminStopMsMax = 500;

/** Brings both databases to the newest version; safe to run twice at once. */
export async function migrate(config: Config, log: Logger): Promise<void> {
  const pool = createPool(config.stores.postgresUrl, { max: 2 });
  try {
    await migratePostgres(pool, log);
    await migrateClickHouse(config.stores.clickhouseUrl, pool, log);
  } finally {
    await pool.end();
  }
}

/** The stores of one process, given back by `lifecycle`. */
async function openStores(config: Config, log: Logger, lifecycle: Lifecycle, poolMax: number) {
  const { postgresUrl, redisUrl, clickhouseUrl, redisRequireAof } = config.stores;
  const pool = createPool(postgresUrl, {
    max: poolMax,
    onIdleError: (err) => log.debug({ err }, 'postgres connection lost'),
  });
  lifecycle.use('postgres', () => pool.end());
  const redis = createRedis(redisUrl, { onError: (err) => log.debug({ err }, 'redis') });
  lifecycle.use('redis', () => redis.disconnect());
  await connectRedis(redis);
  if (redisRequireAof) await requireDurableRedis(redis);
  else log.warn('CORE_REDIS_REQUIRE_AOF=false: a 200 may not survive a crash of Redis');
  const clickhouse = createClickHouse(clickhouseUrl);
  lifecycle.use('clickhouse', () => clickhouse.close());
  return { pool, redis, clickhouse };
}

/** Serves the HTTP routes in this process. The databases must have been migrated. */
export async function startApi(
  config: Config,
  log: Logger,
  nowMs: () => number = Date.now,
  seams: ApiSeams = {},
): Promise<Running & { port: number; adminPort: number }> {
  const lifecycle = new Lifecycle();
  try {
    const { pool, redis, clickhouse } = await openStores(config, log, lifecycle, 8);
    const { redisPrefix: prefix, postgresUrl: databaseUrl } = config.stores;
    const { shards } = config.spool;
    await requireSameInstance(pool, redis, prefix).catch(rethrowUnmigrated);
    await registerStreams(pool, prefix, shards).catch(rethrowUnmigrated);
    const directory = createNodeDirectory({ pool, databaseUrl, log });
    lifecycle.use('node directory', () => directory.close());
    const heartbeats = createHeartbeats({ pool, log, intervalMs: heartbeatFlushMs, nowMs });
    lifecycle.use('heartbeats', () => heartbeats.close());
    const failpoint = createFailpoint(config.failpointUrl, 'api');
    const ownSpool = createSpool({ redis, prefix, ...config.spool, nowMs, failpoint });
    lifecycle.use('spool', () => ownSpool.close());
    const spool = seams.spool?.(ownSpool) ?? ownSpool;

    const bounds = { entriesMax: config.http.bodyEntriesMax, nowMs };
    const schemas = ingestSchemas(bounds);
    const usageScanner = createUsageScanner(bounds);
    const largeBodies = createLargeBodies(bounds);
    lifecycle.use('large bodies', () => largeBodies.close());
    const ingest = { schemas, usageScanner, largeBodies, spool };
    const limit = createRegistrationLimit({
      redis,
      prefix,
      failuresMax: config.nodes.registrationFailuresMax,
    });
    const errorLimit = createErrorLimit({ redis, prefix, reportsMax: config.nodes.errorsMax });
    // Of its own, so that a fleet that asks for unrendered configs at once cannot take the
    // connections that authentication and heartbeats need; the rest of the fleet waits its turn.
    const renderPool = createPool(databaseUrl, { max: 2, connectTimeoutMs: 30_000 });
    lifecycle.use('render pool', () => renderPool.end());
    const configs = createConfigCache({ pool: renderPool, redis, prefix });
    const readiness = createReadiness({ pool, redis, clickhouse });
    const presence = await startPresence({ role: 'api', pool, redis, prefix, readiness, log });
    lifecycle.use('presence', () => presence.close());
    const admin = await startAdmin(config, log, { pool, redis, directory, readiness });
    lifecycle.use('admin http', () => admin.close(adminStopMsMax));
    const server = await createHttpServer({
      ...config.http,
      portSetting: 'CORE_PORT',
      directory,
      log,
      routes: [
        registerRoute({ pool, limit, log }),
        heartbeatRoute({ heartbeats }),
        usageRoute(ingest),
        outboundUsageRoute(ingest),
        sessionEventsRoute(ingest),
        configLatestRoute({ configs }),
        configAppliedRoute({ pool }),
        nodeErrorRoute({ pool, limit: errorLimit }),
        healthzRoute(),
        readyzRoute({ readiness }),
      ],
    });
    lifecycle.use('http', () => server.close(config.stopSecondsMax * 1_000 - closeReserveMs));
    return { port: server.port, adminPort: admin.port, close: () => lifecycle.close() };
  } catch (thrown) {
    await lifecycle.close().catch((err) => log.warn({ err }, 'not everything closed cleanly'));
    throw thrown;
  }
}

/**
 * Listens for operators. Every process does, as on the public port: all that is told comes from the
 * stores, so any of them may answer, and none has to take over from one that died.
 */
function startAdmin(
  config: Config,
  log: Logger,
  deps: { pool: Pool; redis: Redis; directory: NodeDirectory; readiness: Readiness },
): Promise<HttpServer> {
  const { redisPrefix: prefix } = config.stores;
  return createHttpServer({
    ...config.http,
    ...config.admin,
    portSetting: 'CORE_ADMIN_PORT',
    directory: deps.directory,
    log,
    routes: [
      healthzRoute(),
      readyzInFullRoute(deps),
      metricsRoute({ ...deps, prefix, health: config.nodes }),
    ],
  });
}

/** SQLSTATE 42P01, undefined table, is what an empty database answers, and one of an older Core. */
function rethrowUnmigrated(thrown: unknown): never {
  if ((thrown as { code?: unknown }).code !== '42P01') throw thrown;
  throw new CoreError('MIGRATION_FAILED', 'The database is empty: run `core migrate` first', {
    cause: thrown,
  });
}

/** Runs the load worker and the upkeep in this process. */
export async function startWorker(
  config: Config,
  log: Logger,
  seams: WorkerSeams = {},
): Promise<Running> {
  const lifecycle = new Lifecycle();
  try {
    const { pool, redis, clickhouse } = await openStores(
      config,
      log,
      lifecycle,
      workerConnectionsMax,
    );
    const { redisPrefix: prefix, postgresUrl: databaseUrl, redisUrl } = config.stores;
    await requireSameInstance(pool, redis, prefix).catch(rethrowUnmigrated);
    await registerStreams(pool, prefix, config.spool.shards).catch(rethrowUnmigrated);
    const readiness = createReadiness({ pool, redis, clickhouse });
    const presence = await startPresence({ role: 'worker', pool, redis, prefix, readiness, log });
    lifecycle.use('presence', () => presence.close());
    const publishPool = createPool(databaseUrl, { max: 4 });
    lifecycle.use('publish pool', () => publishPool.end());
    const publisher = startPublisher({ pool: publishPool, redis, prefix, databaseUrl, log });
    lifecycle.use('publisher', () => publisher.close());
    // BullMQ takes a while to load, and the api, which imports this file too, does not need it.
    const { startLoadWorker } = await import('./load/worker.ts');
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
    // Before the worker waits for its jobs: an audit may take minutes, and can be had again.
    lifecycle.use('audit', () => stopAudit.abort());
    return { close: () => lifecycle.close() };
  } catch (thrown) {
    await lifecycle.close().catch((err) => log.warn({ err }, 'not everything closed cleanly'));
    throw thrown;
  }
}

/** What the worker does now and then that nothing waits for. */
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
        log.info({ months }, 'making rollups of parts that no merge reaches');
      },
    },
  ];
}

/** Starts the webhook, where one is set; returns what to do with new events every second. */
async function startEvents(
  config: Config,
  log: Logger,
  lifecycle: Lifecycle,
  { pool, redis }: { pool: Pool; redis: Redis },
): Promise<() => Promise<void>> {
  const { redisUrl, redisPrefix: prefix } = config.stores;
  if (config.events.webhook === undefined) {
    const { passEvents } = await import('./webhooks/dispatch.ts');
    const { noteSuccess } = await import('./webhooks/health.ts');
    await noteSuccess(redis, prefix);
    return () => passEvents(pool);
  }
  const { startWebhook } = await import('./webhooks/worker.ts');
  const target = { ...config.events.webhook, timeoutMs: webhookTimeoutMs };
  const webhook = await startWebhook({ pool, redisUrl, prefix, target, log });
  lifecycle.use('webhook', () => webhook.close());
  return () => webhook.dispatch();
}

function noop(): void {}
