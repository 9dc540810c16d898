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
 * Replaces a file as a whole: after a crash it holds the old or the new content, never a part, and
 * once this returns it holds the new one, also after a power cut. The file is a new one, with this mode
 * whatever the old one had. If there was a link, the file takes its place.
 * @throws the error of the file system, e.g. ENOSPC; the old content is then still there.
 */
export function writeDurable(file: string, content: string, mode = 0o600): void {
  // Nobody can guess its name, and it is made here or not at all. Somebody else who may write to the folder
  // could otherwise put a link there, and what it points to would be overwritten.
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

/** A rename or a removal is on disk only once its folder is. */
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
    // A process that ends while its file in /proc is read answers ESRCH.
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw thrown;
  }
}
