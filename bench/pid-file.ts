import { readFileSync } from 'node:fs';
import path from 'node:path';

/** Process id of an embedded server; undefined where it has not been started yet. */
export function readPidFile(dataDir: string, name: string): number | undefined {
  try {
    return Number(readFileSync(path.join(dataDir, `${name}.pid`), 'utf8').trim()) || undefined;
  } catch {
    return undefined;
  }
}
