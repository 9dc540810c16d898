import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';

/**
 * Replaces a file as a whole. After a crash it holds the old or the new content, never a part. Once this
 * has returned, it holds the new one, even after a power cut. The file is a new one and gets this mode, not
 * that of the old one. It replaces a link instead of following it.
 * @throws the error of the file system, e.g. ENOSPC; then the old content is still there.
 */
export function writeDurable(file: string, content: string, mode = 0o600): void {
  // A name that nobody can guess, and `wx`, which fails if the file exists. Otherwise another user who may
  // write to the folder could put a link there, and this would overwrite the file that the link points to.
  const temporary = `${file}.${randomBytes(8).toString('hex')}.tmp`;
  const handle = openSync(temporary, 'wx', mode);
  try {
    try {
      fchmodSync(handle, mode);
      let written = 0;
      const bytes = Buffer.from(content);
      while (written < bytes.length) written += writeSync(handle, bytes, written);
      fsyncSync(handle);
    } finally {
      closeSync(handle);
    }
    renameSync(temporary, file);
  } catch (thrown) {
    rmSync(temporary, { force: true });
    throw thrown;
  }
  syncFolder(path.dirname(file));
}

/** A rename or a removal is on disk only once its folder is synced. */
export function syncFolder(folder: string): void {
  const handle = openSync(folder, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/** The JSON in a file, or undefined if there is no such file. */
export function readJson<T>(file: string): T | undefined {
  const text = readIfThere(file);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new Error(`${file} is damaged: it is not JSON`, { cause });
  }
}

/** The text of a file, or undefined if there is no such file. */
export function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    // ESRCH: a process ended while its file in /proc was read.
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw thrown;
  }
}
