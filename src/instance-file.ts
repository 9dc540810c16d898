import path from 'node:path';
import { readIfThere, writeDurable } from './durable-file.ts';

/** The file in a data directory that holds the id of the Core to which its database belongs. */
function instanceFile(dataDir: string): string {
  return path.join(dataDir, 'instance');
}

/** Undefined if no Core was ever started on this data directory. */
export function readInstanceFile(dataDir: string): string | undefined {
  return readIfThere(instanceFile(dataDir))?.trim();
}

/** Only for a process that has claimed the data directory. */
export function writeInstanceFile(dataDir: string, id: string): void {
  if (readInstanceFile(dataDir) !== id) writeDurable(instanceFile(dataDir), `${id}\n`, 0o644);
}
