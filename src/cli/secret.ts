import { InvalidArgumentError } from 'commander';
import { CoreError } from '../errors.ts';
import { readText } from './arguments.ts';
import type { CliContext } from './context.ts';

// Secrets on the command line. Whoever types one leaves it in the history of the shell, and any user of the machine
// can read the arguments of a process. So an option may name a file or stdin in its place.

const charsMax = 4_096;

/** A secret that an option named, or the place where it is still to be read. */
export type Secret<T> = { value: T } | { isOnStdin: true };

/**
 * A parser of an option: the secret itself, `@file`, or `-` for stdin. The end of the last line is no part of
 * the secret.
 * @param parse checks the text, and throws what commander shows.
 */
export function secret<T>(parse: (text: string) => T): (given: string) => Secret<T> {
  return (given) => {
    if (given === '-') return { isOnStdin: true };
    if (!given.startsWith('@')) return { value: parse(given) };
    return { value: parse(withoutLineEnd(readText(given.slice(1), charsMax))) };
  };
}

/**
 * The secret of an option.
 * @throws CoreError INVALID_ARGUMENT if stdin has none that can be used.
 */
export async function readSecret<T>(
  context: CliContext,
  given: Secret<T> | undefined,
  { option, parse }: { option: string; parse: (text: string) => T },
): Promise<T | undefined> {
  if (given === undefined) return undefined;
  if ('value' in given) return given.value;
  try {
    return parse(withoutLineEnd(await readInput(context.stdin)));
  } catch (cause) {
    if (!(cause instanceof InvalidArgumentError)) throw cause;
    throw new CoreError('INVALID_ARGUMENT', `${option} from stdin: ${cause.message}`, { cause });
  }
}

async function readInput(stdin: NodeJS.ReadableStream): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stdin) {
    const part = Buffer.from(chunk);
    bytes += part.length;
    if (bytes > charsMax) throw new InvalidArgumentError(`It has over ${charsMax} bytes.`);
    chunks.push(part);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function withoutLineEnd(text: string): string {
  return text.replace(/\r?\n$/, '');
}
