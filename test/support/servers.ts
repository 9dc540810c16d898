import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { readConfig } from '../../src/config.ts';
import { claimDataDir } from '../../src/embedded/data-dir.ts';
import { superuserName } from '../../src/embedded/postgres/setup.ts';
import { findOrInstall } from '../../src/embedded/program.ts';
import { startEmbedded } from '../../src/embedded/start.ts';
import { createLogger } from '../../src/log.ts';
import { makeSecrets, withSecrets } from '../../src/secrets.ts';
import { freePorts } from './free-port.ts';

/** Each in the package of its name, and run by tests. */
const programs = ['chromium', 'v2ray', 'nginx', 'caddy', 'openssl'];

export interface TestServers {
  /** For the environment of the tests. */
  environment: Record<string, string>;
  stop(): Promise<void>;
}

/**
 * Starts one Postgres, Redis and ClickHouse in a temporary folder for all test files together. They
 * are the embedded servers of `core up`, so that starting them is tested along the way. Programs that
 * tests run are installed as Redis is.
 */
export async function startTestServers(signal: AbortSignal): Promise<TestServers> {
  const dataDir = mkdtempSync(path.join(os.tmpdir(), 'core-test-'));
  const [postgresPort, redisPort, clickhousePort] = await freePorts(3);
  const settings = readConfig({
    CORE_DATA_DIR: dataDir,
    CORE_POSTGRES_PORT: String(postgresPort),
    CORE_REDIS_PORT: String(redisPort),
    CORE_CLICKHOUSE_PORT: String(clickhousePort),
  });
  const removeFolder = (): void => rmSync(dataDir, { recursive: true, force: true });
  const claim = claimDataDir(dataDir);
  const log = createLogger('warn');
  try {
    const secrets = makeSecrets(dataDir);
    const config = withSecrets(settings, secrets);
    const servers = await startEmbedded(config, secrets, log, signal);
    // If one cannot be installed, the tests that run it say so.
    for (const program of programs) await findOrInstall(program, log, signal);
    return {
      environment: {
        CORE_TEST_POSTGRES_URL: config.stores.postgresUrl,
        CORE_TEST_POSTGRES_ADMIN_URL: adminUrl(postgresPort, secrets.postgresSuperuser),
        CORE_TEST_REDIS_URL: config.stores.redisUrl,
        CORE_TEST_CLICKHOUSE_URL: config.stores.clickhouseUrl,
      },
      stop: async () => {
        await Promise.all(servers.map((server) => server.stop()));
        claim.release();
        removeFolder();
      },
    };
  } catch (thrown) {
    removeFolder();
    throw thrown;
  }
}

/** The superuser's URL, by which each test file gets a database of its own that Core's role owns. */
function adminUrl(port: number | undefined, password: string): string {
  return `postgres://${superuserName}:${password}@127.0.0.1:${port}/${superuserName}`;
}
