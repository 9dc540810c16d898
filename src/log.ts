import { type DestinationStream, destination, type Logger, pino, stdSerializers } from 'pino';
import { escapedJson } from './text.ts';

/**
 * JSON lines on stderr; stdout belongs to what a command prints. Keys and passwords are redacted
 * where one might slip in as a field; registration codes are never given to the log. What could do
 * something to a terminal is escaped.
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

/** Lines that stderr does not take are kept up to this size, and then dropped. */
const keptBytesMax = 1_048_576;

/**
 * A terminal that was closed (EIO), a reader that is gone (EPIPE) or a full disk behind stderr loses
 * lines of the log. It must not end Core, least of all in the middle of a stop.
 */
function stderrLines(): DestinationStream {
  const stream = destination({ fd: 2, sync: true, maxLength: keptBytesMax });
  stream.on('error', () => undefined);
  return { write: (line) => stream.write(escapedJson(line)) };
}

/**
 * An error as pino logs it, but for what may be secret: an error of Redis has its command with all
 * arguments, which of AUTH is the password and of others a node's configuration, and one of `new URL`
 * has the URL.
 */
export function serializeError(thrown: unknown): unknown {
  if (!(thrown instanceof Error)) return thrown;
  const told = stdSerializers.err(thrown);
  const inner = (told['aggregateErrors'] ?? []) as (typeof told)[];
  for (const one of [told, ...inner]) {
    delete one['input'];
    const name: unknown = one['command']?.name;
    if (name !== undefined) one['command'] = { name };
  }
  return told;
}

export type { Logger };
