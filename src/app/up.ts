import type { Config } from '../config.ts';
import { requireChdb } from '../embedded/clickhouse/chdb-binary.ts';
import { claimDataDir, dataDirFault } from '../embedded/data-dir.ts';
import { needsEmbedded, startEmbedded } from '../embedded/start.ts';
import { writeInstanceFile } from '../instance-file.ts';
import type { Logger } from '../log.ts';
import { requireStores } from '../processes/reachable.ts';
import { makeSecrets, type Secrets, withSecrets } from '../secrets.ts';
import { readInstance } from '../stores/instance.ts';
import { createPool } from '../stores/postgres.ts';
import { apiSpecs, childStopMs, startAll, stopAll, workerSpec } from './children.ts';
import { type Ready, readyOf, readyTable } from './ready.ts';
import { portPatienceMs, requireFreePorts } from './roles.ts';
import { runUntilSignal, type Startup, unlessAborted } from './startup.ts';

/**
 * Runs everything until a signal: the embedded servers for which no URL is set, the migrations, the HTTP
 * processes and a worker. Core supervises all of them. `print` is called once all is ready.
 * @returns the exit code. A failure at the start is one line on stderr; nothing is left running.
 */
export async function up(
  given: Config,
  log: Logger,
  print: (ready: Ready, text: string) => void,
): Promise<number> {
  const startedAtMs = performance.now();
  return runUntilSignal(given, log, async (startup) => {
    if (given.embedded.clickhouse) requireChdb();
    const { config, secrets, patienceMs } = claimData(given, startup);
    await requireFreePorts(config, patienceMs);
    // It takes long to load, and the servers take long to start.
    const migrations = import('./migrate.ts');
    if (secrets !== undefined) await startServers(config, secrets, log, startup);
    await unlessAborted(startup.stopping, requireStores(config));
    const { migrate } = await migrations;
    await unlessAborted(startup.stopping, migrate(config, log));
    if (config.embedded.postgres) await recordInstance(config);
    await startProcesses(config, log, startup);
    const ready = readyOf(config, secrets, performance.now() - startedAtMs);
    print(ready, readyTable(config, ready));
  });
}

/** Claims the data directory, if Core runs servers on it, and adds their passwords to the settings. */
function claimData(
  given: Config,
  { lifecycle }: Startup,
): { config: Config; secrets: Secrets | undefined; patienceMs: number } {
  if (!needsEmbedded(given)) {
    return { config: given, secrets: undefined, patienceMs: portPatienceMs };
  }
  const { dataDir } = given.embedded;
  const claim = claimDataDir(dataDir);
  lifecycle.use('data directory', () => claim.release());
  const secrets = makeSecrets(dataDir);
  const patienceMs = claim.afterCrash ? portPatienceMs : 0;
  return { config: withSecrets(given, secrets), secrets, patienceMs };
}

async function startServers(
  config: Config,
  secrets: Secrets,
  log: Logger,
  startup: Startup,
): Promise<void> {
  const servers = await startEmbedded(config, secrets, log, startup.stopping).catch((thrown) => {
    throw dataDirFault(config.embedded.dataDir, thrown);
  });
  startup.lifecycle.use('embedded servers', () => stopAll(servers, startup.remainingMs()));
}

async function startProcesses(config: Config, log: Logger, startup: Startup): Promise<void> {
  const children = await startAll([...apiSpecs(config), workerSpec(config)], log, startup.stopping);
  startup.lifecycle.use('processes', () =>
    stopAll(children, childStopMs(config, startup.remainingMs())),
  );
}

/** Writes the id of the database into the data directory, so that commands know which one belongs to it. */
async function recordInstance({ stores, embedded }: Config): Promise<void> {
  const pool = createPool(stores.postgresUrl, { max: 1 });
  try {
    writeInstanceFile(embedded.dataDir, await readInstance(pool));
  } catch (thrown) {
    throw dataDirFault(embedded.dataDir, thrown);
  } finally {
    await pool.end();
  }
}
