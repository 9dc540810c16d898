import type { Redis } from 'ioredis';
import type { Pool } from 'pg';
import { createLargeBodies } from '../accept/large-bodies.ts';
import type { Config } from '../config.ts';
import { ingestSchemas } from '../contract/node.ts';
import { createFailpoint } from '../failpoints.ts';
import { configAppliedRoute } from '../http/routes/config-applied.ts';
import { configLatestRoute } from '../http/routes/config-latest.ts';
import { healthzRoute, readyzInFullRoute, readyzRoute } from '../http/routes/health.ts';
import { heartbeatRoute } from '../http/routes/heartbeat.ts';
import { outboundUsageRoute, sessionEventsRoute, usageRoute } from '../http/routes/ingest.ts';
import { metricsRoute } from '../http/routes/metrics.ts';
import { nodeErrorRoute } from '../http/routes/node-error.ts';
import { registerRoute } from '../http/routes/register.ts';
import { createHttpServer, type HttpServer } from '../http/server.ts';
import type { Logger } from '../log.ts';
import { createNodeDirectory, type NodeDirectory } from '../nodes/directory.ts';
import { createHeartbeats } from '../nodes/heartbeat.ts';
import { createErrorLimit, createRegistrationLimit } from '../nodes/minute-limits.ts';
import { startPresence } from '../presence/presence.ts';
import { createConfigCache } from '../publish/config-cache.ts';
import { createSpool, type Spool } from '../spool/spool.ts';
import { createPool } from '../stores/postgres.ts';
import { createReadiness, type Readiness } from '../stores/readiness.ts';
import { openStores, type Running, startRole } from './stores.ts';
import { subscriptionPageRoutes } from './subscription-pages.ts';

/**
 * Wrappers of the fault suite: it takes one protection away and checks that its oracle notices. No setting
 * reaches them: they are parameters, and Core itself passes none.
 */
export interface ApiSeams {
  spool?: (spool: Spool) => Spool;
}

const connectionsMax = 8;
const heartbeatFlushMs = 1_000;
/** Part of the stop deadline for closing the stores after the last answer. */
const closeReserveMs = 2_000;
/** A scrape that takes longer may be cut off by a stop. */
const adminStopMsMax = 500;

/** Serves the HTTP routes in this process. The databases must have been migrated. */
export async function startApi(
  config: Config,
  log: Logger,
  nowMs: () => number = Date.now,
  seams: ApiSeams = {},
): Promise<Running & { port: number; adminPort: number }> {
  return startRole(log, async (lifecycle) => {
    const { pool, redis, clickhouse } = await openStores(config, log, lifecycle, connectionsMax);
    const { redisPrefix: prefix, postgresUrl: databaseUrl } = config.stores;
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
    const largeBodies = createLargeBodies(bounds);
    lifecycle.use('large bodies', () => largeBodies.close());
    const ingest = { schemas, bounds, largeBodies, spool };
    const limit = createRegistrationLimit({
      redis,
      prefix,
      failuresMax: config.nodes.registrationFailuresMax,
    });
    const errorLimit = createErrorLimit({ redis, prefix, reportsMax: config.nodes.errorsMax });
    // A pool of their own: a fleet that asks for unrendered configs at once must not take the connections
    // that authentication and heartbeats need. Nodes past the two wait their turn.
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
        nodeErrorRoute({ pool, limit: errorLimit, rollsBack: config.nodes.rollsBack }),
        healthzRoute(),
        readyzRoute({ readiness }),
        ...subscriptionPageRoutes(config, log, lifecycle, redis),
      ],
    });
    lifecycle.use('http', () => server.close(config.stopSecondsMax * 1_000 - closeReserveMs));
    return { port: server.port, adminPort: admin.port };
  });
}

/**
 * Listens for operators. Every api process does this, as on the public port. All values come from the
 * stores, so any process may answer, and none has to take over from one that died.
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
