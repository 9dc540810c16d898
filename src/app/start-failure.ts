import { CoreError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { classifyFailure } from '../stores/failures.ts';
import { printable } from '../text.ts';

/** Prints one line for the person who started Core, and logs the causes. */
export function reportFailure(thrown: unknown, log: Logger): void {
  logFailure(thrown, log);
  process.stderr.write(`core: ${printable(failureLine(thrown))}\n`);
}

/** Prints the original message of an unexpected error, since "Internal error" would not help anybody. */
export function failureLine(thrown: unknown): string {
  const { message } =
    isUnexpected(thrown) && thrown instanceof Error ? thrown : classifyFailure(thrown);
  return message.replaceAll('\n', ' ');
}

/** An unexpected error is logged always, an expected one on debug: its line has already said it all. */
export function logFailure(thrown: unknown, log: Logger): void {
  const level = isUnexpected(thrown) ? 'fatal' : 'debug';
  log[level]({ err: thrown }, 'core could not start');
}

function isUnexpected(thrown: unknown): boolean {
  return !(thrown instanceof CoreError) || thrown.code === 'INTERNAL';
}
