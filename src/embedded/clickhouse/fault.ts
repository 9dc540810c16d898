import { messageOf } from '../../errors.ts';

/**
 * An error in ClickHouse's own wording (`Code: 60. DB::Exception: … (UNKNOWN_TABLE)`), so that
 * `@clickhouse/client` finds code and type in the text, whether the engine refused or the front did.
 */
interface ClickHouseFault {
  code: number;
  status: number;
  /** The whole text, as it goes over the wire. */
  text: string;
  headers: Readonly<Record<string, string>>;
}

interface FaultOptions {
  status?: number;
  retryAfterSeconds?: number;
  headers?: Readonly<Record<string, string>>;
  cause?: unknown;
}

/** The code of a statement that cannot be parsed. */
export const syntaxErrorCode = 62;

const faultKey = Symbol('ClickHouseFault');

/** An Error with which the front itself refuses something. `toFault` returns its parts. */
export function clickhouseFault(
  code: number,
  type: string,
  message: string,
  options: FaultOptions = {},
): Error {
  const text = `Code: ${code}. DB::Exception: ${message} (${type})`;
  const error = new Error(text, options.cause === undefined ? undefined : { cause: options.cause });
  const fault: ClickHouseFault = {
    code,
    status: options.status ?? statusOfCode(code),
    text,
    headers: {
      ...options.headers,
      ...(options.retryAfterSeconds === undefined
        ? {}
        : { 'Retry-After': String(options.retryAfterSeconds) }),
    },
  };
  return Object.assign(error, { [faultKey]: fault });
}

/** The refusal of something that nobody may do. */
export function deniedFault(message: string): Error {
  return clickhouseFault(497, 'ACCESS_DENIED', message);
}

export function syntaxFault(message: string, options: FaultOptions = {}): Error {
  return clickhouseFault(syntaxErrorCode, 'SYNTAX_ERROR', message, options);
}

/** The fault that the client gets for anything that was thrown: by the front, by the engine, or by a bug. */
export function toFault(thrown: unknown): ClickHouseFault {
  if (thrown instanceof Error) {
    const own: unknown = Reflect.get(thrown, faultKey);
    if (own !== undefined) return own as ClickHouseFault;
    const code = /^Code: (\d+)\./.exec(thrown.message)?.[1];
    if (code !== undefined) {
      return {
        code: Number(code),
        status: statusOfCode(Number(code)),
        text: thrown.message.trimEnd(),
        headers: {},
      };
    }
  }
  return {
    code: 1002,
    status: 500,
    text: `Code: 1002. DB::Exception: ${messageOf(thrown)} (UNKNOWN_EXCEPTION)`,
    headers: {},
  };
}

const badRequestCodes = new Set([
  6, 26, 27, 32, 33, 34, 36, 38, 41, 43, 53, 62, 69, 70, 72, 108, 117, 130, 131, 158, 190, 321, 376,
  377, 386, 395, 410, 427, 431, 441, 452, 456, 457, 467, 636, 675, 691,
]);
const notFoundCodes = new Set([16, 46, 47, 50, 56, 60, 63, 73, 81, 115, 182, 336, 400, 428]);

/**
 * HTTP status of an exception code, as ClickHouse maps them.
 *
 * Source: https://github.com/ClickHouse/ClickHouse/blob/master/src/Server/HTTP/exceptionCodeToHTTPStatus.cpp
 */
function statusOfCode(code: number): number {
  if (code === 164 || code === 497 || code === 291 || code === 358) return 403;
  if (code === 159) return 408;
  if (code === 48 || code === 1) return 501;
  if (code === 202 || code === 236 || code === 439) return 503;
  if (badRequestCodes.has(code)) return 400;
  if (notFoundCodes.has(code)) return 404;
  return 500;
}
