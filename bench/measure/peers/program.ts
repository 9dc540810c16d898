import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Lifecycle } from '../../../src/lifecycle.ts';
import { createLogger } from '../../../src/log.ts';
import { supervise } from '../../../src/processes/supervisor.ts';

const readyMsMax = 60_000;
const stopMsMax = 30_000;
const pollMs = 50;

/** A folder of the peer's own. `lifecycle` removes it. */
export function createFolder(lifecycle: Lifecycle): string {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'core-peer-'));
  lifecycle.use('peer folder', () => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** What has to be installed; undefined if the program is on the PATH. */
export function missingProgram(name: string): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(path.delimiter).filter((one) => one !== '');
  const found = folders.some((folder) => {
    try {
      accessSync(path.join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  return found ? undefined : `${name} is not on the PATH`;
}

/**
 * Starts a program and waits until `healthUrl` answers with a 2xx. `lifecycle` ends it. The program
 * has a process group of its own, so that Ctrl-C reaches the bench alone.
 */
export async function startProgram(
  lifecycle: Lifecycle,
  program: { name: string; args: string[]; dir: string; healthUrl: string },
  signal: AbortSignal,
): Promise<void> {
  const { name, args, dir, healthUrl } = program;
  const supervised = await supervise(
    {
      name,
      command: name,
      args,
      cwd: dir,
      logFile: path.join(dir, 'log'),
      ready: (waiting) => untilHealthy(healthUrl, waiting),
      readyMsMax,
      stopSignal: 'SIGTERM',
      stopMsMax,
      failureCode: 'PROCESS_FAILED',
    },
    createLogger('error'),
    signal,
  );
  lifecycle.use(name, () => supervised.stop());
}

async function untilHealthy(url: string, signal: AbortSignal): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    const healthy = await fetch(url, { signal }).then(
      ({ ok }) => ok,
      () => false,
    );
    if (healthy) return;
    await delay(pollMs, undefined, { signal });
  }
}
