import { readFileSync } from 'node:fs';

/** Resident memory of a process in bytes; undefined if it has ended or if there is no /proc. */
export function residentBytes(pid: number | undefined): number | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    const kibibytes = /^VmRSS:\s+(\d+) kB/m.exec(status)?.[1];
    return kibibytes === undefined ? undefined : Number(kibibytes) * 1_024;
  } catch {
    // The process has ended, or the system has no /proc.
    return undefined;
  }
}
