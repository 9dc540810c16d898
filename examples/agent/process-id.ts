import { readdirSync, readlinkSync } from 'node:fs';
import { readIfThere } from '../../src/durable-file.ts';

/**
 * `<pid>-<start time>-<boot id>`, which no other process ever has. A pid alone may be used again.
 * Undefined if there is no such process, or if it has ended and its parent has not waited for it yet.
 * Linux only, since it comes from /proc.
 */
export function processId(pid: number): string | undefined {
  const stat = readIfThere(`/proc/${pid}/stat`);
  const boot = readIfThere('/proc/sys/kernel/random/boot_id');
  if (stat === undefined || boot === undefined) return undefined;
  // The second field is the name in parentheses. The name may hold blanks and parentheses itself.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
  return `${pid}-${fields[19]}-${boot.trim()}`;
}

export function isRunning(id: string): boolean {
  return processId(Number(id.split('-')[0])) === id;
}

/** The processes whose working directory is `folder`, with their arguments. */
export function processesIn(folder: string): { pid: number; argv: string[] }[] {
  const found: { pid: number; argv: string[] }[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isSafeInteger(pid) || pid === process.pid) continue;
    try {
      if (readlinkSync(`/proc/${pid}/cwd`) !== folder) continue;
      const argv = readIfThere(`/proc/${pid}/cmdline`)?.split('\0') ?? [];
      found.push({ pid, argv });
    } catch {
      // Another user's process, or one that has just ended. Neither is our proxy.
    }
  }
  return found;
}
