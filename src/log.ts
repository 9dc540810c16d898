import { type DestinationStream, destination, type Logger, pino } from 'pino';
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

export type { Logger };
