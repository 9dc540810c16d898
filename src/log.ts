import { destination, type Logger, pino } from 'pino';

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
    destination({ fd: 2, sync: true }),
  );
}

export type { Logger };
