import type { CoreError, ErrorCode } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Route } from './route.ts';

/** Lines of one code in a second. While a store is away, each request fails for the same reason. */
const linesMax = 10;
const windowMs = 1_000;

/** Writes failed requests to the log, but not so many that whoever sends them could fill it. */
export interface FailureLog {
  write(requestId: string, route: Route, error: CoreError): void;
}

interface Window {
  sinceMs: number;
  lines: number;
  /** Not written since the last line that was. */
  leftOut: number;
}

/**
 * Faults of Core or a store are logged with their causes; what a client did wrong only on debug. A line
 * that follows others that were left out says how many in `leftOut`.
 */
export function createFailureLog(
  log: Logger,
  nowMs: () => number = () => performance.now(),
): FailureLog {
  const windows = new Map<ErrorCode, Window>();
  /** Lines left out before this one, or undefined if it is to be left out as well. */
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
