import type { Config } from '../config.ts';
import type { Logger } from '../log.ts';
import { type Supervised, startTogether } from '../processes/supervisor.ts';
import type { Secrets } from '../secrets.ts';
import { startClickHouse } from './clickhouse/start.ts';
import { startPostgres } from './postgres/start.ts';
import { startRedis } from './redis/start.ts';

/** Whether at least one store has no URL, so that Core runs it itself. */
export function needsEmbedded(config: Config): boolean {
  return config.embedded.postgres || config.embedded.redis || config.embedded.clickhouse;
}

/**
 * Starts the servers for which no URL is set, all at the same time. If one fails, none is left running. The
 * caller must have claimed the data directory.
 */
export function startEmbedded(
  config: Config,
  secrets: Secrets,
  log: Logger,
  signal: AbortSignal,
): Promise<Supervised[]> {
  const { dataDir } = config.embedded;
  const starts: ((signal: AbortSignal) => Promise<Supervised>)[] = [];
  if (config.embedded.postgres) {
    const { postgres, postgresSuperuser } = secrets;
    const options = {
      dataDir,
      port: config.embedded.postgresPort,
      passwords: { postgres, postgresSuperuser },
    };
    starts.push((either) => startPostgres(options, log, either));
  }
  if (config.embedded.redis) {
    const port = config.embedded.redisPort;
    const password = secrets.redis;
    starts.push((either) => startRedis({ dataDir, port, password }, log, either));
  }
  if (config.embedded.clickhouse) {
    const { clickhousePort: port, clickhouseHosts: hosts } = config.embedded;
    starts.push((either) => startClickHouse({ dataDir, port, hosts }, log, either));
  }
  return startTogether(starts, signal);
}
