import { type DestinationStream, destination, type Logger, pino, stdSerializers } from 'pino';
import { escapedJson } from './text.ts';

/**
 * JSON lines on stderr, since stdout is for the output of commands. Fields that may hold a key or password
 * are redacted; nobody logs a registration code. Characters that could control a terminal are escaped.
 */
export function createLogger(level: string): Logger {
  return pino(
    {
      level,
      base: { pid: process.pid },
      serializers: { err: serializeError },
      redact: {
        paths: ['authKey', 'password', '*.authKey', '*.password', '*["x-node-auth-key"]'],
        censor: '[redacted]',
      },
    },
    stderrLines(),
  );
}

/** If stderr takes no lines, they are kept up to this size and dropped after it. */
const keptBytesMax = 1_048_576;

/**
 * If the terminal was closed (EIO), the reader is gone (EPIPE) or the disk is full, lines of the log are
 * lost. That must not end Core, least of all in the middle of a stop.
 */
function stderrLines(): DestinationStream {
  const stream = destination({ fd: 2, sync: true, maxLength: keptBytesMax });
  stream.on('error', () => undefined);
  return { write: (line) => stream.write(escapedJson(line)) };
}

/**
 * An error as pino logs it, without what may be secret. An error of Redis holds its command with all
 * arguments, and these may be a password (AUTH) or a node's configuration. An error of `new URL` holds the
 * URL.
 */
export function serializeError(thrown: unknown): unknown {
  if (!(thrown instanceof Error)) return thrown;
  const logged = stdSerializers.err(thrown);
  const inner = (logged['aggregateErrors'] ?? []) as (typeof logged)[];
  for (const one of [logged, ...inner]) {
    delete one['input'];
    const name: unknown = one['command']?.name;
    if (name !== undefined) one['command'] = { name };
  }
  return logged;
}

export type { Logger };
