import type { Config } from '../config.ts';
import { untilSignalled } from '../lifecycle.ts';
import type { Logger } from '../log.ts';
import { requireFreePort } from '../processes/port.ts';
import { requireStores } from '../processes/reachable.ts';
import { classifyFailure } from '../stores/failures.ts';
import { apiSpecs, startAll, stopAll } from './children.ts';
import { failureLine, logFailure, reportFailure } from './start-failure.ts';
import { runUntilSignal } from './startup.ts';
import type { Running } from './stores.ts';

// Each role loads its module when it starts: api.ts brings the HTTP server and worker.ts the workers, and
// no other command should wait for them.

/** After a crash, the processes of the former Core may need a moment to let go of the ports. */
export const portPatienceMs = 4_000;

/**
 * HTTP only, from `config.http.processes` processes on one port, supervised, until a signal.
 * @returns the exit code, as `up`.
 */
export async function serveProcesses(config: Config, log: Logger): Promise<number> {
  return runUntilSignal(config, log, async ({ lifecycle, stopping, remainingMs }) => {
    await requireFreePorts(config, portPatienceMs);
    const children = await startAll(apiSpecs(config), log, stopping);
    lifecycle.use('processes', () => stopAll(children, remainingMs()));
    log.info({ processes: children.length, port: config.http.port }, 'core serves');
  });
}

/** HTTP only, in this one process, until a signal or until the parent is gone. Returns the exit code. */
export async function runServe(config: Config, log: Logger): Promise<number> {
  return runRole(config, log, async () => {
    // A child shares the ports with its siblings; its parent has made sure that they are free.
    if (process.send === undefined) await requireFreePorts(config, portPatienceMs);
    const { startApi } = await import('./api.ts');
    return startApi(config, log);
  });
}

/** The worker only, in this one process, until a signal or until the parent is gone. */
export async function runWork(config: Config, log: Logger): Promise<number> {
  return runRole(config, log, async () => {
    const { startWorker } = await import('./worker.ts');
    return startWorker(config, log);
  });
}

/** @throws CoreError PORT_TAKEN if another program listens on one of the HTTP ports. */
export async function requireFreePorts({ http, admin }: Config, patienceMs: number): Promise<void> {
  await requireFreePort(http.host, http.port, 'CORE_PORT', patienceMs);
  await requireFreePort(admin.host, admin.port, 'CORE_ADMIN_PORT', patienceMs);
}

/** Runs one role in this process. A child tells its supervisor over IPC how the start went. */
async function runRole(
  config: Config,
  log: Logger,
  start: () => Promise<Running>,
): Promise<number> {
  const stopped = Promise.race([untilSignalled(), untilOrphaned()]);
  try {
    await requireStores(config);
    const running = await start();
    tellParent({ ready: true });
    await stopped;
    return await closeInTime(running, config.stopSecondsMax * 1_000, log);
  } catch (thrown) {
    if (process.send === undefined) reportFailure(thrown, log);
    else {
      logFailure(thrown, log);
      // The parent prints the one line.
      tellParent({ failed: { code: classifyFailure(thrown).code, message: failureLine(thrown) } });
    }
    return 1;
  } finally {
    // An open channel would keep this process alive.
    if (process.connected) process.disconnect();
  }
}

function untilOrphaned(): Promise<'orphaned'> {
  return new Promise((resolve) => {
    process.once('disconnect', () => resolve('orphaned'));
  });
}

function tellParent(message: object): void {
  // If the parent is gone, the disconnect event says so.
  process.send?.(message, undefined, {}, () => undefined);
}

async function closeInTime(running: Running, msMax: number, log: Logger): Promise<number> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<number>((resolve) => {
    timer = setTimeout(() => {
      log.error(`did not stop within ${msMax} ms; what is in flight is cut off`);
      resolve(1);
    }, msMax);
  });
  const closed = running.close().then(
    () => 0,
    (err: unknown) => {
      log.error({ err }, 'not everything closed cleanly');
      return 1;
    },
  );
  const exitCode = await Promise.race([closed, late]);
  clearTimeout(timer);
  return exitCode;
}
