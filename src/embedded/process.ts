import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../log.ts';

/** What tells an embedded server's processes from all others: see `endLeftovers`. */
export interface ServerMark {
  name: 'postgres' | 'redis' | 'clickhouse';
  /** The server's working directory, which is its data directory. */
  dir: string;
  pidFile: string;
  /**
   * What a command line, split into its arguments, is to this server: its main process, one that
   * lives and dies with the main process (Postgres has one a connection), or nothing of it.
   */
  roleOf: (argv: readonly string[]) => Role;
  stopSignal: NodeJS.Signals;
}

export type Role = 'main' | 'part' | 'stranger';

interface Leftover {
  pid: number;
  role: Role;
}

const leftoverMsMax = 10_000;
const pollMs = 20;

/** Name of the program that a command line runs; servers that set their title keep it in front. */
export function programName(argv: readonly string[]): string {
  return path.basename(argv[0]?.split(' ')[0] ?? '').replace(/:$/, '');
}

/** Remembers the process, for systems without /proc. */
export function writePidFile(mark: ServerMark, pid: number): void {
  writeFileSync(mark.pidFile, `${pid}\n`);
}

/**
 * Stops what a killed Core left running on this data directory, and waits until it is gone. Only
 * processes are touched that are this very server with this very working directory; on systems
 * without /proc, the process of the pid file if its command line is this server's.
 */
export async function endLeftovers(mark: ServerMark, log: Logger): Promise<void> {
  let left = findProcesses(mark);
  if (left.length === 0) return;
  log.warn(
    { process: mark.name, pids: left.map((one) => one.pid) },
    `${mark.name} of a former Core still runs; stopping it first`,
  );
  // To a part the stop signal would mean something else; it ends once its main process has.
  signalAll(
    left.filter((one) => one.role === 'main'),
    mark.stopSignal,
  );
  const giveUpAtMs = performance.now() + leftoverMsMax;
  while (left.length > 0 && performance.now() < giveUpAtMs) {
    await delay(pollMs);
    left = findProcesses(mark);
  }
  if (left.length === 0) return;
  log.warn({ process: mark.name }, `${mark.name} of a former Core does not stop; killing it`);
  signalAll(left, 'SIGKILL');
  for (let wait = 0; left.length > 0 && wait < leftoverMsMax / pollMs; wait += 1) {
    await delay(pollMs);
    left = findProcesses(mark);
  }
}

function signalAll(processes: readonly Leftover[], signal: NodeJS.Signals): void {
  for (const { pid } of processes) {
    try {
      process.kill(pid, signal);
    } catch (thrown) {
      // It ended by itself in the meantime.
      if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown;
    }
  }
}

function findProcesses(mark: ServerMark): Leftover[] {
  return existsSync('/proc/self/cwd') ? findInProc(mark) : findByPidFile(mark);
}

function findInProc(mark: ServerMark): Leftover[] {
  const found: Leftover[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isSafeInteger(pid) || pid === process.pid) continue;
    try {
      if (readlinkSync(`/proc/${pid}/cwd`) !== mark.dir) continue;
      const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      const role = mark.roleOf(argv);
      if (role !== 'stranger' && !isZombie(pid)) found.push({ pid, role });
    } catch {
      // Another user's process, or one that ended while it was looked at. Neither is a leftover:
      // ours run as this user, or this user is root and may read all.
    }
  }
  return found;
}

/**
 * Ended, and only waiting to be noticed by its parent: that of an orphan is process 1, which may be
 * slow. Throws where there is no such process, or no /proc.
 */
export function isZombie(pid: number): boolean {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z');
}

function findByPidFile(mark: ServerMark): Leftover[] {
  try {
    const pid = Number(readFileSync(mark.pidFile, 'utf8').trim());
    if (!Number.isSafeInteger(pid) || pid <= 0 || pid === process.pid) return [];
    const command = execFileSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8' });
    const role = mark.roleOf(command.trim().split(/\s+/));
    return role === 'stranger' ? [] : [{ pid, role }];
  } catch {
    // No pid file, or `ps` knows no such process.
    return [];
  }
}
