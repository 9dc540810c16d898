import { findOrInstall } from '../../src/embedded/find-program.ts';
import { superuserName } from '../../src/embedded/postgres/setup.ts';
import { createLogger } from '../../src/log.ts';
import { startTemporaryServers } from './temporary-servers.ts';

/** Programs that tests run. Each is in the package of its name. */
const programs = ['chromium', 'v2ray', 'nginx', 'caddy', 'openssl'];

interface TestServers {
  /** Variables for the environment of the tests. */
  environment: Record<string, string>;
  stop(): Promise<void>;
}

/**
 * Starts one Postgres, Redis and ClickHouse for all test files together, and installs the programs
 * that tests run. The servers are those of `core up`, so every run tests that they start.
 */
export async function startTestServers(signal: AbortSignal): Promise<TestServers> {
  const log = createLogger('warn');
  const { config, secrets, stop } = await startTemporaryServers('core-test-', log, signal);
  try {
    // If a program cannot be installed, the tests that run it say so.
    for (const program of programs) await findOrInstall(program, log, signal);
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  const { postgresUrl, redisUrl, clickhouseUrl } = config.stores;
  return {
    environment: {
      CORE_TEST_POSTGRES_URL: postgresUrl,
      CORE_TEST_POSTGRES_ADMIN_URL: adminUrl(postgresUrl, secrets.postgresSuperuser),
      CORE_TEST_REDIS_URL: redisUrl,
      CORE_TEST_CLICKHOUSE_URL: clickhouseUrl,
    },
    stop,
  };
}

/** The superuser's URL. A test file needs it to create a database that Core's role owns. */
function adminUrl(postgresUrl: string, password: string): string {
  const { port } = new URL(postgresUrl);
  return `postgres://${superuserName}:${password}@127.0.0.1:${port}/${superuserName}`;
}
