import type { CoreError, ErrorCode } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Route } from './route.ts';

/** Lines per error code and second. While a store is away, every request fails for the same reason. */
const linesMax = 10;
const windowMs = 1_000;

/** Logs failed requests, within a bound, so that nobody can fill the log by sending bad requests. */
export interface FailureLog {
  write(requestId: string, route: Route, error: CoreError): void;
}

interface Window {
  sinceMs: number;
  lines: number;
  /** Failures since the last written line. */
  leftOut: number;
}

/**
 * Faults of Core or of a store are logged with their causes. What a client did wrong is logged at debug
 * level only. After lines were left out, the next line says how many in `leftOut`.
 */
export function createFailureLog(
  log: Logger,
  nowMs: () => number = () => performance.now(),
): FailureLog {
  const windows = new Map<ErrorCode, Window>();
  /** How many lines were left out before this one; undefined if this one is left out, too. */
  const take = (code: ErrorCode): number | undefined => {
    const window = windows.get(code) ?? { sinceMs: nowMs(), lines: 0, leftOut: 0 };
    windows.set(code, window);
    if (nowMs() - window.sinceMs >= windowMs) {
      window.sinceMs = nowMs();
      window.lines = 0;
    }
    if (window.lines >= linesMax) {
      window.leftOut += 1;
      return undefined;
    }
    window.lines += 1;
    const { leftOut } = window;
    window.leftOut = 0;
    return leftOut;
  };
  return {
    write(requestId, { method, path }, error) {
      const fields = { requestId, method, path, code: error.code };
      if (error.status !== 500 && error.status !== 503) {
        log.debug(fields, 'request refused');
        return;
      }
      const leftOut = take(error.code);
      if (leftOut === undefined) return;
      const more = leftOut === 0 ? fields : { ...fields, leftOut };
      if (error.status === 500) log.error({ ...more, err: error }, 'request failed');
      else log.warn({ ...more, cause: String(error.cause ?? '') }, 'request refused');
    },
  };
}
