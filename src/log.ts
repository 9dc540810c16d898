import { type DestinationStream, destination, type Logger, pino } from 'pino';

/**
 * JSON lines on stderr; stdout belongs to what a command prints. Keys and passwords are redacted
 * where one might slip in as a field; registration codes are never given to the log.
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
  return stream;
}

export type { Logger };
