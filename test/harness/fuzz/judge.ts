import { gunzipSync } from 'node:zlib';
import { type ErrorCode, errorTable } from '../../../src/errors.ts';
import type { Answer } from './answers.ts';

/** Statuses for a request that reaches no route's handler. */
const beforeRoute = [400, 404, 405, 503];
const withBody = [200, 400, 413, 415, 503];
const ingest = [...withBody, 401, 422];

/** Statuses that the contract of the node routes allows each route, by method and path. */
const allowed: Readonly<Record<string, readonly number[]>> = {
  'POST /node/register': [...withBody, 403, 429],
  'POST /node/heartbeat': [...withBody, 401],
  'POST /node/usage': ingest,
  'POST /node/outbound-usage': ingest,
  'POST /node/session-events': ingest,
  'GET /node/config/latest': [200, 304, 400, 401, 413, 503],
  'POST /node/config/applied': [...withBody, 401, 409],
  'POST /node/error': [...withBody, 401, 429],
  'GET /healthz': [200, 400, 413, 503],
  'GET /readyz': [200, 400, 413, 503],
};
const anyStatus = new Set([...Object.values(allowed).flat(), ...beforeRoute]);
const allowHeader: Readonly<Record<string, string>> = Object.fromEntries(
  Object.keys(allowed).map((route) => {
    const [method = '', path = ''] = route.split(' ');
    return [path, method === 'GET' ? 'GET, HEAD' : method];
  }),
);

/** Texts of a stack, of SQL, or of files of the server. */
const leak =
  /\n\s+at |node_modules|\.(js|ts):\d+|\b(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM|WHERE)\b|ECONN|SQLSTATE|pg_|zlib|gunzip|Unexpected token|RangeError|TypeError/;

/**
 * What is wrong with an answer, or undefined if the contract of the node routes allows it. `request` is
 * undefined if the request was damaged. No answer may hold one of `secrets`.
 */
export function judge(
  answer: Answer,
  request: { method: string; path: string } | undefined,
  secrets: readonly string[],
  isHead = request?.method === 'HEAD',
): string | undefined {
  const { status } = answer;
  if (!statusesFor(request).includes(status)) return `status ${status} is not allowed here`;
  if (answer.headers.get('x-request-id')?.length !== 1) return 'no X-Request-Id';
  if (isHead) return undefined;
  if (status === 304) return answer.headers.has('etag') ? undefined : '304 without ETag';
  const text = textOf(answer);
  if (text === undefined) return 'the body is not gzip, although its header says so';
  if (leak.test(text) && request?.path !== '/metrics')
    return `the answer shows a stack or SQL: ${text}`;
  if (secrets.some((secret) => text.includes(secret))) return 'the answer shows a secret';
  const type = answer.headers.get('content-type')?.[0] ?? '';
  if (request?.path === '/metrics' && status === 200) {
    return type.startsWith('text/plain') ? undefined : `metrics are ${type}`;
  }
  const isMetrics = type.startsWith('text/plain') && status === 200 && request === undefined;
  if (isMetrics) return undefined;
  if (type !== 'application/json') return `content type ${JSON.stringify(type)}`;
  const value = parsed(text);
  if (typeof value !== 'object' || value === null) return `not a JSON object: ${text.slice(0, 80)}`;
  return status === 200 ? undefined : judgeError(answer, value, request);
}

function statusesFor(request: { method: string; path: string } | undefined): readonly number[] {
  if (request === undefined) return [...anyStatus];
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  const route = allowed[`${method} ${request.path}`];
  if (route !== undefined) return route;
  return allowHeader[request.path] === undefined ? [400, 404] : [400, 405];
}

function judgeError(
  answer: Answer,
  value: object,
  request: { path: string } | undefined,
): string | undefined {
  const { error } = value as { error?: Record<string, unknown> };
  if (typeof error !== 'object' || error === null) return 'no error in the body';
  const { code, message, issues, ...others } = error;
  if (typeof code !== 'string' || !Object.hasOwn(errorTable, code)) return `code ${code}`;
  if (errorTable[code as ErrorCode].status !== answer.status) return `${code} as ${answer.status}`;
  if (typeof message !== 'string' || message === '') return 'no message';
  if (Object.keys(others).length > 0) return `more fields in the error: ${Object.keys(others)}`;
  if (code === 'VALIDATION_FAILED' ? !areIssues(issues) : issues !== undefined) {
    return `issues ${JSON.stringify(issues)}`;
  }
  const allow = answer.headers.get('allow');
  if (answer.status === 405) {
    if (allow?.length !== 1) return '405 without Allow';
    const expected = request === undefined ? undefined : allowHeader[request.path];
    if (expected !== undefined && allow[0] !== expected) return `Allow: ${allow[0]}`;
  }
  const retry = answer.headers.get('retry-after')?.[0] ?? '';
  if ((answer.status === 429 || answer.status === 503) && !/^[1-9]\d*$/.test(retry)) {
    return `${answer.status} without Retry-After`;
  }
  return undefined;
}

function areIssues(issues: unknown): boolean {
  if (!Array.isArray(issues) || issues.length === 0 || issues.length > 20) return false;
  return issues.every(
    (issue) => typeof issue?.path === 'string' && typeof issue.message === 'string',
  );
}

function textOf(answer: Answer): string | undefined {
  if (answer.headers.get('content-encoding')?.[0] !== 'gzip') return answer.body.toString();
  try {
    return gunzipSync(answer.body).toString();
  } catch {
    return undefined;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
