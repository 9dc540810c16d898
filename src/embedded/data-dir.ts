import { linkSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { readIfThere } from '../durable-file.ts';
import { CoreError } from '../errors.ts';
import { readProcessStat } from './process-stat.ts';

export interface DataDirClaim {
  /** The Core before this one did not stop cleanly: processes of it may still be ending. */
  afterCrash: boolean;
  release(): void;
}

const attemptsMax = 3;

/**
 * Claims the data directory for this process, so that two Cores never run servers on the same
 * files. The claim is a lock file that names its process together with that process's start, so
 * that a process id which came to somebody else (after a crash or in a new container) does not count.
 * @throws CoreError DATA_DIR_IN_USE while another Core holds it.
 */
export function claimDataDir(dataDir: string): DataDirClaim {
  createDataDir(dataDir);
  const lockFile = path.join(dataDir, 'core.lock');
  const own = path.join(dataDir, `core.lock.${process.pid}`);
  const content = describeProcess(process.pid) ?? `${process.pid}`;
  writeFileSync(own, content);
  try {
    let afterCrash = false;
    for (let attempt = 1; attempt <= attemptsMax; attempt += 1) {
      if (tryLink(own, lockFile)) return { afterCrash, release: () => release(lockFile, content) };
      const holder = readIfThere(lockFile);
      if (holder !== undefined && isAlive(holder)) throw inUse(dataDir, holder);
      if (holder !== undefined) removeStale(lockFile, holder);
      afterCrash = true;
    }
    throw inUse(dataDir, readIfThere(lockFile) ?? 'unknown');
  } finally {
    rmSync(own, { force: true });
  }
}

function createDataDir(dataDir: string): void {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new CoreError(
      'EMBEDDED_SERVER_FAILED',
      `The data directory ${dataDir} cannot be created (${(cause as NodeJS.ErrnoException).code}). Set CORE_DATA_DIR to one that can`,
      { cause },
    );
  }
}

function inUse(dataDir: string, holder: string): CoreError {
  return new CoreError(
    'DATA_DIR_IN_USE',
    `Another Core (process ${holder.split(' ')[0]}) is using the data directory ${dataDir}. Stop it, or set CORE_DATA_DIR to another one`,
  );
}

/** A hard link is created wholly or not at all, and never replaces what is there. */
function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw thrown;
  }
}

/**
 * Takes a stale lock out of the way. It is moved first and looked at again, because another Core
 * that starts at this moment may have replaced it; that one's lock is put back.
 */
function removeStale(lockFile: string, seen: string): void {
  const aside = `${lockFile}.stale.${process.pid}`;
  try {
    renameSync(lockFile, aside);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw thrown;
  }
  if (readIfThere(aside) !== seen) tryLink(aside, lockFile);
  rmSync(aside, { force: true });
}

function release(lockFile: string, content: string): void {
  if (readIfThere(lockFile) === content) rmSync(lockFile, { force: true });
}

/** A Core that was killed runs nothing any more, also while it ends and as a zombie. */
function isAlive(holder: string): boolean {
  const pid = Number(holder.split(' ')[0]);
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  const stat = readProcessStat(pid);
  if (stat !== undefined && stat.state !== 'running') return false;
  const described = describeProcess(pid);
  if (described !== undefined) return described === holder;
  // No /proc here, or no such process: all that is left is to ask whether the id is in use.
  try {
    process.kill(pid, 0);
    return process.platform !== 'linux' && pid !== process.pid;
  } catch (thrown) {
    return (thrown as NodeJS.ErrnoException).code === 'EPERM' && process.platform !== 'linux';
  }
}

/** `<pid> <boot id> <start time>`, which no other process ever has; undefined without /proc. */
function describeProcess(pid: number): string | undefined {
  const stat = readProcessStat(pid);
  const boot = readIfThere('/proc/sys/kernel/random/boot_id');
  if (stat === undefined || boot === undefined) return undefined;
  return `${pid} ${boot.trim()} ${stat.startTicks}`;
}
