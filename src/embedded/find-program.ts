import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import type { Logger } from '../log.ts';

const run = promisify(execFile);

/** Packages install servers into these folders, and a plain user's PATH leaves some of them out. */
const usualFolders = ['/usr/bin', '/usr/local/bin', '/usr/sbin', '/opt/homebrew/bin'];
const aptMsMax = 300_000;

/** A program's path, or how the operator can get a program that Core could not install. */
type FoundProgram = { path: string } | { remedy: string; cause?: unknown };

/**
 * Finds a program. If it is missing on Debian or Ubuntu, installs the package of the same name, if this
 * process may.
 */
export async function findOrInstall(
  name: string,
  log: Logger,
  signal: AbortSignal,
): Promise<FoundProgram> {
  const found = await findProgram(name);
  if (found !== undefined) return { path: found };
  const apt = await findProgram('apt-get');
  if (apt === undefined) return { remedy: `install ${name}` };
  const remedy = `apt-get install ${name}`;
  if (process.getuid?.() !== 0) return { remedy };
  try {
    await installWithApt(apt, name, log, signal);
  } catch (cause) {
    return { remedy, cause };
  }
  await stopDistroService(name, log);
  const installed = await findProgram(name);
  return installed === undefined ? { remedy } : { path: installed };
}

/** Full path of a program. The shell searches the PATH, and then the usual folders. */
export async function findProgram(name: string): Promise<string | undefined> {
  const search = `PATH="$PATH:${usualFolders.join(':')}"; command -v "$1"`;
  try {
    const { stdout } = await run('/bin/sh', ['-c', search, 'sh', name]);
    return stdout.trim() || undefined;
  } catch {
    return undefined;
  }
}

async function installWithApt(
  apt: string,
  name: string,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  log.info(`${name} is missing; installing it with apt-get`);
  // apt-get inherits the environment; `env` adds to it.
  const quietly = ['DEBIAN_FRONTEND=noninteractive', apt];
  const options = { signal, timeout: aptMsMax, maxBuffer: 16_777_216 };
  // An update fails if only one of many sources does, and the source of this package may be fine.
  await run('env', [...quietly, 'update'], options).catch((cause: unknown) =>
    log.warn({ err: cause }, 'apt-get update failed'),
  );
  await run('env', [...quietly, 'install', '-y', '--no-install-recommends', name], options);
}

/**
 * Stops the service that the package may have started on the usual port. The program was missing before, so
 * Core has caused that service and nobody uses it yet.
 */
async function stopDistroService(name: string, log: Logger): Promise<void> {
  try {
    if (existsSync('/run/systemd/system')) {
      await run('systemctl', ['disable', '--now', name]);
    } else if (existsSync(`/etc/init.d/${name}`)) {
      await run(`/etc/init.d/${name}`, ['stop']);
    }
  } catch (cause) {
    log.warn({ err: cause }, `the ${name} service that apt started could not be stopped`);
  }
}
