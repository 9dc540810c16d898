import path from 'node:path';
import { readIfThere, writeDurable } from './durable-file.ts';

/** The file of a data directory that names the Core whose database lies in it. */
function instanceFile(dataDir: string): string {
  return path.join(dataDir, 'instance');
}

/** Undefined for a data directory that no Core has been started on. */
export function readInstanceFile(dataDir: string): string | undefined {
  return readIfThere(instanceFile(dataDir))?.trim();
}

/** Written by who has claimed the data directory, once its database has an id. */
export function writeInstanceFile(dataDir: string, id: string): void {
  if (readInstanceFile(dataDir) !== id) writeDurable(instanceFile(dataDir), `${id}\n`, 0o644);
}
