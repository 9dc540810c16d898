import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import type { Engine } from './engine.ts';
import { clickhouseFault, syntaxFault, toFault } from './fault.ts';
import { readonlyFault } from './guard.ts';
import { type Login, logIn, refuseWebPages } from './login.ts';
import { type QueryRequest, queryIdOf, readQueryRequest } from './request.ts';
import type { SelectDone } from './results.ts';
import type { TemporaryFiles } from './temporary-files.ts';

interface HttpOptions {
  /** Resolves once the engine is open; requests that come earlier wait for it. */
  engine: Promise<Engine>;
  files: TemporaryFiles;
  login: Login;
  /** Names that the header `Host` may have. */
  hosts: ReadonlySet<string>;
  database: string;
  bodyBytesMax: number;
  /** Gets every fault of the server; faults of a request only go to the client. */
  onFault: (thrown: unknown) => void;
}

/** A client that reads nothing of its answer for this long is disconnected. */
const sendMsMax = 60_000;

/** Answers like ClickHouse's HTTP interface: `/`, `/ping` and `/replicas_status`. */
export function createHttpListener(options: HttpOptions): RequestListener {
  return (request, response) => {
    answer(request, response, options).catch((thrown: unknown) => {
      replyFault(request, response, thrown, options.onFault);
    });
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  options: HttpOptions,
): Promise<void> {
  refuseWebPages(request, options.hosts);
  const url = urlOf(request);
  const reads = request.method === 'GET' || request.method === 'HEAD';
  if (!reads && request.method !== 'POST') {
    response.setHeader('Allow', 'GET, HEAD, POST');
    throw clickhouseFault(1, 'UNSUPPORTED_METHOD', `Method ${request.method}`, { status: 405 });
  }
  const isPing = url.pathname === '/ping' || url.pathname === '/replicas_status';
  // The login comes before the body, so that a client without a password cannot fill the memory.
  const account = isPing ? undefined : logIn(request, url.searchParams, options.login);
  const asksNothing = url.pathname === '/' && reads && !url.searchParams.has('query');
  if (account === undefined || asksNothing) {
    await options.engine;
    response.writeHead(200, { 'Content-Type': 'text/html; charset=UTF-8' }).end('Ok.\n');
    return;
  }
  if (url.pathname !== '/') {
    throw clickhouseFault(
      36,
      'BAD_ARGUMENTS',
      `There is no handle ${url.pathname}. Use / or /ping; a database is /?database=NAME.`,
      { status: 404 },
    );
  }
  const engine = await options.engine;
  const query = await readQueryRequest(request, url, account, options);
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  if (query.work.kind === 'insert')
    await answerInsert(response, query, engine, options.files, gone);
  else await answerSql(response, query, engine, gone);
}

function urlOf(request: IncomingMessage): URL {
  try {
    return new URL(request.url ?? '/', 'http://clickhouse');
  } catch (cause) {
    throw clickhouseFault(36, 'BAD_ARGUMENTS', 'The URL is malformed.', { cause });
  }
}

async function answerInsert(
  response: ServerResponse,
  query: QueryRequest,
  engine: Engine,
  files: TemporaryFiles,
  gone: AbortController,
): Promise<void> {
  if (query.work.kind !== 'insert') return;
  if (query.scope.readonly) throw readonlyFault(query.scope);
  const { statement } = query.work;
  const rows = await files.write(query.work.rows);
  try {
    const done = await engine.insert(statement, rows, query.scope, gone.signal);
    const summary = {
      read_rows: String(done.writtenRows),
      read_bytes: String(done.writtenBytes),
      written_rows: String(done.writtenRows),
      written_bytes: String(done.writtenBytes),
      ...elapsed(done.elapsedSeconds),
    };
    response.writeHead(200, headersOf(query, query.defaultFormat, summary)).end();
  } finally {
    await rows.release();
  }
}

async function answerSql(
  response: ServerResponse,
  query: QueryRequest,
  engine: Engine,
  gone: AbortController,
): Promise<void> {
  if (query.work.kind !== 'sql') return;
  const { sql, statement } = query.work;
  if (statement.kind === 'empty') {
    throw syntaxFault('Syntax error: empty query');
  }
  if (statement.kind === 'several') {
    throw syntaxFault(
      `Syntax error (Multi-statements are not allowed): failed at position ${statement.offset + 1}`,
    );
  }
  const done = await engine.run(sql, query.defaultFormat, query.scope, gone.signal);
  const { format } = done;
  if (done.kind === 'other') {
    const summary = elapsed(done.elapsedSeconds);
    response.writeHead(200, {
      ...headersOf(query, format, summary),
      'Content-Length': done.body.length,
    });
    response.end(done.body);
    return;
  }
  try {
    await sendResult(response, query, done, gone);
  } finally {
    done.release();
  }
}

async function sendResult(
  response: ServerResponse,
  query: QueryRequest,
  done: SelectDone,
  gone: AbortController,
): Promise<void> {
  // The client went away while the query ended: only the result is left to be freed.
  if (gone.signal.aborted) return done.file.close();
  const summary = { result_rows: String(done.resultRows), ...elapsed(done.elapsedSeconds) };
  response.writeHead(200, {
    ...headersOf(query, done.format, summary),
    ...(query.gzipReply
      ? { 'Content-Encoding': 'gzip', Vary: 'Accept-Encoding' }
      : { 'Content-Length': done.bytes }),
  });
  response.setTimeout(sendMsMax, () => response.destroy());
  const source = done.file.createReadStream({ highWaterMark: 256 * 1024 });
  if (query.gzipReply) await pipeline(source, createGzip({ level: 3 }), response);
  else await pipeline(source, response);
}

function elapsed(seconds: number): Record<string, string> {
  return { elapsed_ns: String(Math.round(seconds * 1e9)) };
}

/** `summary` has the values that chdb reports. ClickHouse reports more, and does not always report all. */
function headersOf(
  query: QueryRequest,
  format: string,
  summary: Record<string, string>,
): Record<string, string> {
  return {
    'Content-Type': contentTypeOf(format),
    'X-ClickHouse-Server-Display-Name': 'core-embedded',
    'X-ClickHouse-Query-Id': query.queryId,
    'X-ClickHouse-Format': format,
    'X-ClickHouse-Timezone': 'UTC',
    'X-ClickHouse-Summary': JSON.stringify(summary),
  };
}

function contentTypeOf(format: string): string {
  if (/^(TabSeparated|TSV)/i.test(format)) return 'text/tab-separated-values; charset=UTF-8';
  if (/^CSV/i.test(format)) return 'text/csv; charset=UTF-8; header=absent';
  if (/EachRow/.test(format)) return 'application/x-ndjson; charset=UTF-8';
  if (/^JSON/i.test(format)) return 'application/json; charset=UTF-8';
  if (/^(RowBinary|Native|Parquet|Arrow|ORC|Avro|MsgPack)/i.test(format)) {
    return 'application/octet-stream';
  }
  return 'text/plain; charset=UTF-8';
}

function replyFault(
  request: IncomingMessage,
  response: ServerResponse,
  thrown: unknown,
  onFault: HttpOptions['onFault'],
): void {
  // The answer is already being sent, or nobody waits for it: the broken connection is the only message.
  if (response.headersSent || response.destroyed || request.errored !== null) {
    response.destroy();
    return;
  }
  const fault = toFault(thrown);
  if (fault.code === 1002) onFault(thrown);
  // Otherwise the rest of the body would be taken for the next request.
  if (!request.complete) response.setHeader('Connection', 'close');
  response
    .writeHead(fault.status, {
      ...fault.headers,
      'Content-Type': 'text/plain; charset=UTF-8',
      'X-ClickHouse-Exception-Code': String(fault.code),
      'X-ClickHouse-Query-Id': queryIdOf(safeUrl(request)),
    })
    .end(`${fault.text}\n`);
}

function safeUrl(request: IncomingMessage): URL {
  try {
    return urlOf(request);
  } catch {
    return new URL('http://clickhouse/');
  }
}
