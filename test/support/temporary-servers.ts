import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type Config, readConfig } from '../../src/config.ts';
import { claimDataDir } from '../../src/embedded/data-dir.ts';
import { startEmbedded } from '../../src/embedded/start.ts';
import type { Logger } from '../../src/log.ts';
import { makeSecrets, withSecrets } from '../../src/secrets.ts';
import { freePorts } from './free-port.ts';

interface TemporaryServers {
  /** Settings with the addresses and passwords of the servers. */
  config: Config;
  secrets: ReturnType<typeof makeSecrets>;
  /** Stops the servers and removes their folder. */
  stop(): Promise<void>;
}

/**
 * Starts the embedded Postgres, Redis and ClickHouse of `core up` on free ports, in a temporary folder with
 * a name that begins with `prefix`.
 */
export async function startTemporaryServers(
  prefix: string,
  log: Logger,
  signal: AbortSignal,
): Promise<TemporaryServers> {
  const dataDir = mkdtempSync(path.join(os.tmpdir(), prefix));
  const [postgresPort, redisPort, clickhousePort] = await freePorts(3);
  const settings = readConfig({
    CORE_DATA_DIR: dataDir,
    CORE_POSTGRES_PORT: String(postgresPort),
    CORE_REDIS_PORT: String(redisPort),
    CORE_CLICKHOUSE_PORT: String(clickhousePort),
  });
  const claim = claimDataDir(dataDir);
  const removeFolder = (): void => {
    claim.release();
    rmSync(dataDir, { recursive: true, force: true });
  };
  try {
    const secrets = makeSecrets(dataDir);
    const config = withSecrets(settings, secrets);
    const servers = await startEmbedded(config, secrets, log, signal);
    const stop = async (): Promise<void> => {
      await Promise.all(servers.map((server) => server.stop()));
      removeFolder();
    };
    return { config, secrets, stop };
  } catch (thrown) {
    removeFolder();
    throw thrown;
  }
}
