import { mkdirSync, openSync, readFileSync, renameSync, statSync } from 'node:fs';
import path from 'node:path';

/** A start renames a log file over this size to `….1`, and so replaces the `….1` before it. */
const logBytesMax = 10_485_760;
const complaintCharsMax = 300;

/** Opens a program's log file for appending, and returns its length. The caller closes the descriptor. */
export function openLogFile(file: string): { fd: number; offset: number } {
  mkdirSync(path.dirname(file), { recursive: true });
  const bytes = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  const full = bytes > logBytesMax;
  if (full) renameSync(file, `${file}.1`);
  return { fd: openSync(file, 'a', 0o600), offset: full ? 0 : bytes };
}

/**
 * The line that says why a program ended: the last line after the offset that looks like an error. If no
 * line does, it is the last line.
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
