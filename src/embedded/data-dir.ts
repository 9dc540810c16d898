import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { readIfThere } from '../durable-file.ts';
import { CoreError } from '../errors.ts';
import { readProcessIdentity, readProcessStat } from '../linux-processes.ts';

interface DataDirClaim {
  /** Whether the Core before this one did not stop cleanly: its processes may still be ending. */
  afterCrash: boolean;
  release(): void;
}

const attemptsMax = 3;
/** A start writes more than this in any case. */
const probeBytes = 65_536;

/**
 * Claims the data directory for this process, so that two Cores never run servers on the same files. The
 * claim is a lock file with the process id and the start time of that process. After a crash, or in a new
 * container, another process may have the same id. Then the start time differs, and the lock does not
 * count.
 * @throws CoreError DATA_DIR_IN_USE while another Core holds it, DATA_DIR_UNUSABLE if this process cannot
 * write there, or if another user can.
 */
export function claimDataDir(dataDir: string): DataDirClaim {
  try {
    prepareDataDir(dataDir);
    return claim(dataDir);
  } catch (thrown) {
    // The error of a write does not name its file.
    const isOfWrite = (thrown as NodeJS.ErrnoException).syscall?.includes('write') === true;
    throw isOfWrite ? unusable(dataDir, dataDir, thrown) : dataDirFault(dataDir, thrown);
  }
}

function claim(dataDir: string): DataDirClaim {
  const lockFile = path.join(dataDir, 'core.lock');
  const own = path.join(dataDir, `core.lock.${process.pid}`);
  const content = describeProcess(process.pid) ?? `${process.pid}`;
  try {
    writeFileSync(own, content);
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
    removeQuietly(own);
  }
}

/**
 * Makes the folder, and makes sure that files can be written in it. A server that cannot write its files
 * says so less clearly, or only in its log. The folder of Postgres is left out, since it may belong to
 * another user.
 */
function prepareDataDir(dataDir: string): void {
  makeFolder(dataDir);
  keepOthersOut(dataDir);
  makeFolder(path.join(dataDir, 'logs'));
  for (const name of ['.', 'logs', 'redis', 'clickhouse']) {
    const folder = path.join(dataDir, name);
    if (existsSync(folder)) probe(path.join(folder, `core.probe.${process.pid}`));
  }
}

/**
 * Another user who may write to the folder could put a file with known passwords there, or a link with the
 * name of a file that Core is about to write. Below /tmp, anybody can make the folder before Core does.
 */
function keepOthersOut(dataDir: string): void {
  const { uid, mode } = statSync(dataDir);
  const own = process.getuid?.();
  if (own !== undefined && uid !== own) {
    throw new CoreError(
      'DATA_DIR_UNUSABLE',
      `The data directory ${dataDir} cannot be used: it belongs to another user (${uid}), who could read all secrets. Make it yours (chown), or set CORE_DATA_DIR to another folder`,
    );
  }
  if ((mode & 0o022) !== 0) chmodSync(dataDir, mode & 0o7755);
}

/** Not mkdir's `recursive`: in Node 20 it never returns if a parent cannot be made, as under /proc. */
function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === 'EEXIST' && statSync(folder).isDirectory()) return;
    if (code !== 'ENOENT' || path.dirname(folder) === folder) throw thrown;
    makeFolder(path.dirname(folder));
    mkdirSync(folder, { mode: 0o700 });
  }
}

/** Writes and syncs some bytes: on a full disk a file can still be made, and only these steps fail. */
function probe(file: string): void {
  try {
    writeFileSync(file, Buffer.alloc(probeBytes), { flush: true, mode: 0o600 });
  } finally {
    removeQuietly(file);
  }
}

/** The caller already has a failure to report, and a failure to remove the file would hide it. */
function removeQuietly(file: string): void {
  try {
    rmSync(file, { force: true });
  } catch {
    // It is empty, or was never made.
  }
}

/**
 * Turns an error of the file system about the data directory into one clear line. Returns anything else as
 * it is.
 */
export function dataDirFault(dataDir: string, thrown: unknown): unknown {
  const { code, path: file } = thrown as NodeJS.ErrnoException;
  if (thrown instanceof CoreError || code === undefined || file === undefined) return thrown;
  return isWithin(file, dataDir) ? unusable(dataDir, file, thrown) : thrown;
}

function unusable(dataDir: string, file: string, cause: unknown): CoreError {
  const { code = 'unknown' } = cause as NodeJS.ErrnoException;
  const why = meanings[code] ?? 'the file system refuses it';
  return new CoreError(
    'DATA_DIR_UNUSABLE',
    `The data directory ${dataDir} cannot be used: ${why} (${code}, ${file}). Fix that, or set CORE_DATA_DIR to another folder`,
    { cause },
  );
}

/** Also true for a folder above the data directory: Core may have failed to make that one. */
function isWithin(file: string, dataDir: string): boolean {
  const slashed = (folder: string): string =>
    folder.endsWith(path.sep) ? folder : folder + path.sep;
  return slashed(file).startsWith(slashed(dataDir)) || slashed(dataDir).startsWith(slashed(file));
}

const meanings: Partial<Record<string, string>> = {
  EACCES: 'this user may not write there',
  EPERM: 'the file system does not allow it',
  EROFS: 'its file system is read-only',
  ENOSPC: 'its disk is full',
  EDQUOT: 'the quota of this user is used up',
  ENOTDIR: 'a part of its path is a file',
  EEXIST: 'a file has its name',
  ENOENT: 'a folder of its path is missing and cannot be made',
  ENAMETOOLONG: 'its path is too long',
  ELOOP: 'its symbolic links go in a circle',
  EIO: 'its disk has a fault',
};

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
 * Removes a stale lock. Another Core that starts at this moment may have replaced it. So the lock is moved
 * first and read again, and a lock of another Core is put back.
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

/** A Core that is ending or a zombie holds no claim: it starts nothing any more. */
function isAlive(holder: string): boolean {
  const pid = Number(holder.split(' ')[0]);
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  const stat = readProcessStat(pid);
  if (stat !== undefined && stat.state !== 'running') return false;
  const described = describeProcess(pid);
  if (described !== undefined) return described === holder;
  // There is no /proc, or no such process: the only other way is to ask whether the id is in use.
  try {
    process.kill(pid, 0);
    return process.platform !== 'linux' && pid !== process.pid;
  } catch (thrown) {
    return (thrown as NodeJS.ErrnoException).code === 'EPERM' && process.platform !== 'linux';
  }
}

/** `<pid> <boot id> <start time>`: no other process ever has it. Undefined without /proc. */
function describeProcess(pid: number): string | undefined {
  const identity = readProcessIdentity(pid);
  return identity && `${pid} ${identity.bootId} ${identity.startTicks}`;
}
