import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { type Account, querySizeOf } from './access.ts';
import { readBody, readHead } from './body.ts';
import type { Scope } from './connections.ts';
import { clickhouseFault } from './fault.ts';
import { querySizeFault } from './judge.ts';
import { type InsertStatement, parseStatement, type Statement } from './statement.ts';

/** A request, read up to where an INSERT's rows begin. */
export interface QueryRequest {
  scope: Scope;
  queryId: string;
  defaultFormat: string;
  gzipReply: boolean;
  work:
    | { kind: 'insert'; statement: InsertStatement; rows: AsyncIterable<Buffer> }
    | { kind: 'sql'; sql: string; statement: Exclude<Statement, InsertStatement> };
}

/** The engine's own `max_query_size`: the rows of an INSERT must begin within it. */
const headBytes = 256 * 1024;

/** Parameters of the URL that are neither settings nor query parameters. */
const reserved = new Set([
  'query',
  'database',
  'default_format',
  'query_id',
  'session_id',
  'session_timeout',
  'session_check',
  'close_session',
  'user',
  'password',
  'role',
  'quota_key',
  'stacktrace',
  'wait_end_of_query',
  'buffer_size',
  'client_protocol_version',
  'log_comment',
  'readonly',
]);

const settingName = /^[A-Za-z_][A-Za-z0-9_.]{0,127}$/;
const paramName = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
const formatName = /^[A-Za-z][A-Za-z0-9_]{0,63}$/;

/** The client's id of its query. It is also needed if reading the request fails. */
export function queryIdOf(url: URL): string {
  const given = url.searchParams.get('query_id') ?? '';
  // It goes into a header, which takes visible ASCII only.
  return /^[\x20-\x7e]{1,256}$/.test(given) ? given : randomUUID();
}

/**
 * Reads a request of ClickHouse's HTTP interface. The SQL is in the URL or in the body, or it begins in the
 * URL and continues in the body.
 */
export async function readQueryRequest(
  request: IncomingMessage,
  url: URL,
  account: Account,
  options: { database: string; bodyBytesMax: number },
): Promise<QueryRequest> {
  const fields = new Map(url.searchParams);
  const chunks = readBody(request, options.bodyBytesMax);
  let sqlInUrl = fields.get('query') ?? '';
  const type = request.headers['content-type'] ?? '';
  if (type.startsWith('multipart/form-data')) {
    const form = await readForm(chunks, type, querySizeOf(account).max);
    for (const [name, value] of form) fields.set(name, value);
    sqlInUrl = fields.get('query') ?? '';
  }
  const header = (name: string): string | undefined => request.headers[name]?.toString();
  const defaultFormat =
    fields.get('default_format') ?? header('x-clickhouse-format') ?? 'TabSeparated';
  if (!formatName.test(defaultFormat)) {
    throw clickhouseFault(73, 'UNKNOWN_FORMAT', `Unknown format ${defaultFormat}`);
  }
  const { settings, params, readonly } = readSettings(fields);
  const scope: Scope = {
    account,
    database: fields.get('database') || header('x-clickhouse-database') || options.database,
    readonly: readonly || account === 'analyst' || request.method !== 'POST',
    settings,
    params,
  };
  const compression = fields.get('enable_http_compression') ?? '0';
  return {
    scope,
    queryId: queryIdOf(url),
    defaultFormat,
    gzipReply: /^(1|true)$/.test(compression) && /\bgzip\b/.test(header('accept-encoding') ?? ''),
    work: await readWork(sqlInUrl, chunks, sqlBytesMaxOf(scope)),
  };
}

function readSettings(
  fields: ReadonlyMap<string, string>,
): Pick<Scope, 'settings' | 'params' | 'readonly'> {
  const settings = new Map<string, string>();
  const params = new Map<string, string>();
  // A request may ask to be read-only. A 0 changes nothing: the account and the method decide.
  const readonly = /^[12]$/.test(fields.get('readonly') ?? '');
  for (const [name, value] of fields) {
    if (reserved.has(name)) continue;
    if (name === 'compress' || name === 'decompress') {
      if (value === '0') continue;
      throw clickhouseFault(
        48,
        'NOT_IMPLEMENTED',
        'The native compression is not supported; use Content-Encoding and Accept-Encoding.',
      );
    }
    if (name.startsWith('param_') && paramName.test(name.slice(6))) {
      params.set(name.slice(6), value);
    } else if (settingName.test(name)) {
      settings.set(name, value);
    } else {
      throw clickhouseFault(115, 'UNKNOWN_SETTING', `Unknown setting '${name}'`);
    }
  }
  return { settings, params, readonly };
}

async function readForm(
  chunks: AsyncIterator<Buffer>,
  type: string,
  bytesMax: number,
): Promise<Map<string, string>> {
  const { head } = await readHead(chunks, Buffer.alloc(0), bytesMax);
  if (head.length >= bytesMax) throw tooLongFault(bytesMax);
  const form = new Map<string, string>();
  try {
    const response = new Response(head, { headers: { 'content-type': type } });
    for (const [name, value] of await response.formData()) {
      if (typeof value === 'string') form.set(name, value);
      else throw clickhouseFault(48, 'NOT_IMPLEMENTED', 'External tables are not supported.');
    }
  } catch (thrown) {
    if (!(thrown instanceof TypeError)) throw thrown;
    throw clickhouseFault(36, 'BAD_ARGUMENTS', 'The multipart body is malformed.', {
      cause: thrown,
    });
  }
  return form;
}

/** Longest SQL that a request may send without rows. The guard judges the setting itself. */
function sqlBytesMaxOf({ account, settings }: Scope): number {
  const { name, value, max } = querySizeOf(account);
  const asked = settings.get(name);
  return asked !== undefined && /^\d{1,16}$/.test(asked) ? Math.min(Number(asked), max) : value;
}

/** Reads on to the end, because a client reads its refusal only after it has sent everything. */
async function refuseLength(chunks: AsyncIterable<Buffer>, bytesMax: number): Promise<never> {
  for await (const _ of chunks);
  throw querySizeFault(bytesMax);
}

async function readWork(
  sqlInUrl: string,
  chunks: AsyncGenerator<Buffer, undefined>,
  sqlBytesMax: number,
): Promise<QueryRequest['work']> {
  const prefix = Buffer.from(sqlInUrl === '' ? '' : `${sqlInUrl}\n`);
  let { head, ended } = await readHead(chunks, prefix, prefix.length + headBytes);
  // Latin-1 has one character a byte: offsets are bytes, and binary rows cannot confuse the parser.
  const latin = parseStatement(head.toString('latin1'));
  if (latin.kind === 'insert') {
    return {
      kind: 'insert',
      statement: toUtf8(latin),
      rows: rowsFrom(head.subarray(latin.dataStart), chunks),
    };
  }
  // The length is checked first: the server answers nobody else while it splits a statement.
  if (!ended) ({ head, ended } = await readHead(chunks, head, sqlBytesMax + 1));
  if (head.length > sqlBytesMax) return refuseLength(chunks, sqlBytesMax);
  const sql = head.toString('utf8');
  const statement = parseStatement(sql);
  if (statement.kind === 'insert') {
    // The statement itself, before its rows, was longer than the head.
    const whole = parseStatement(head.toString('latin1'));
    if (whole.kind !== 'insert') throw tooLongFault(sqlBytesMax);
    return {
      kind: 'insert',
      statement: toUtf8(whole),
      rows: rowsFrom(head.subarray(whole.dataStart), chunks),
    };
  }
  return { kind: 'sql', sql, statement };
}

async function* rowsFrom(first: Buffer, rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  if (first.length > 0) yield first;
  yield* rest;
}

function toUtf8(statement: InsertStatement): InsertStatement {
  const utf8 = (text: string): string => Buffer.from(text, 'latin1').toString('utf8');
  const { columns, settings } = statement;
  return {
    ...statement,
    target: utf8(statement.target),
    columns: columns === undefined ? undefined : utf8(columns),
    settings: settings === undefined ? undefined : utf8(settings),
  };
}

function tooLongFault(bytesMax: number): Error {
  return clickhouseFault(307, 'TOO_MANY_BYTES', `The query is over ${bytesMax} bytes.`, {
    status: 413,
  });
}
