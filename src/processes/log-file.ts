import { mkdirSync, openSync, readFileSync, renameSync, statSync } from 'node:fs';
import path from 'node:path';

/** A log file over this size at a start becomes `….1`, in place of the one before. */
const logBytesMax = 10_485_760;
const complaintCharsMax = 300;

/**
 * Opens the log file of a program for appending, and says how long it was. The caller closes the
 * descriptor.
 */
export function openLogFile(file: string): { fd: number; offset: number } {
  mkdirSync(path.dirname(file), { recursive: true });
  const bytes = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  const full = bytes > logBytesMax;
  if (full) renameSync(file, `${file}.1`);
  return { fd: openSync(file, 'a', 0o600), offset: full ? 0 : bytes };
}

/**
 * The line in which a program that ended says why: the last one behind the offset that sounds like
 * it, else the last one.
 */
export function lastComplaint(file: string, offset: number): string | undefined {
  const lines = readFileSync(file)
    .subarray(offset)
    .toString('utf8')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const line = lines.findLast((one) => /fatal|panic|error|failed/i.test(one)) ?? lines.at(-1);
  return line?.slice(0, complaintCharsMax);
}
