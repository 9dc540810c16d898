import { randomUUID } from 'node:crypto';
import { type FileHandle, open, writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { sqlString } from '../clickhouse-sql.ts';
import { toFault } from './clickhouse-fault.ts';
import { type InsertDone, insertFile } from './clickhouse-insert.ts';
import { createLane, type Lane } from './clickhouse-lane.ts';
import { openSessions, type Scope, type Sessions } from './clickhouse-sessions.ts';
import type { Spool, SpooledFile } from './clickhouse-spool.ts';
import type { InsertStatement, Statement } from './clickhouse-statement.ts';

export interface SelectDone {
  /** The result, in a file that has no name any more: closing it frees its bytes. */
  file: FileHandle;
  bytes: number;
  format: string;
  resultRows: number;
  elapsedSeconds: number;
}

export interface OtherDone {
  body: Uint8Array;
  format: string;
  elapsedSeconds: number;
}

/**
 * The engine behind the HTTP interface: a place to run for every statement, in a scope of its own.
 * An aborted signal takes a statement out of the queue and cancels a SELECT that runs.
 */
export interface Engine {
  insert(
    statement: InsertStatement,
    rows: SpooledFile,
    scope: Scope,
    signal: AbortSignal,
  ): Promise<InsertDone>;
  select(
    sql: string,
    statement: Extract<Statement, { kind: 'select' }>,
    format: string,
    scope: Scope,
    signal: AbortSignal,
  ): Promise<SelectDone>;
  other(sql: string, format: string, scope: Scope, signal: AbortSignal): Promise<OtherDone>;
  /** Refuses what waits, lets what runs finish, all but inserts within `queryMsMax`, and closes. */
  close(queryMsMax: number): Promise<void>;
}

/**
 * Bound on a SELECT's result, unless the request sets its own `max_result_bytes`: it lies on disk
 * until the client has taken it. Past it the engine answers TOO_MANY_ROWS_OR_BYTES.
 */
const resultBytesMax = 8 * 1024 ** 3;

const syntaxErrorCode = 62;
const killAgainMs = 100;

/**
 * Opens the engine and its default database.
 *
 * Inserts run one at a time, which costs no throughput (each takes the disk and a core) and bounds
 * memory to one block. Everything else has `queriesMax` places of its own, so that an analyst's long
 * query holds no insert up. Each that runs holds one of libuv's threads, and files and gzip need one
 * as well: UV_THREADPOOL_SIZE, which is 4 by default, must be at least `queriesMax` + 2.
 *
 * @throws when the directory cannot be opened, for instance because another process holds it.
 */
export async function openEngine(options: {
  directory: string;
  database: string;
  spool: Spool;
  queriesMax: number;
}): Promise<Engine> {
  const sessions = openSessions(options.directory);
  const { spool } = options;
  // Only now is it certain that no other process uses the folder.
  spool.clear();
  const name = `\`${options.database}\``;
  await sessions.own(`CREATE DATABASE IF NOT EXISTS ${name}`);
  const inserts = createLane({ runningMax: 1, waitingMax: 256 });
  const queries = createLane({ runningMax: options.queriesMax, waitingMax: 256 });
  const running: Running = new Map();

  return {
    insert: (statement, rows, scope, signal) =>
      enter(inserts, signal, () => insertFile(sessions, statement, rows, scope)),
    select: (sql, statement, format, scope, signal) =>
      enter(queries, signal, async () => {
        const { mark, marked } = begin(running, scope);
        const onAbort = (): void => cancel(sessions, running, mark);
        signal.addEventListener('abort', onAbort, { once: true });
        try {
          return await selectToFile(sessions, spool, sql, statement, format, marked);
        } finally {
          signal.removeEventListener('abort', onAbort);
          running.delete(mark);
        }
      }),
    other: (sql, format, scope, signal) =>
      enter(queries, signal, async () => {
        const { mark, marked } = begin(running, scope);
        try {
          return await sessions.within(marked, false, async (query) => {
            const result = await query(sql, format);
            return { body: result.bytes(), format, elapsedSeconds: result.elapsed };
          });
        } finally {
          running.delete(mark);
        }
      }),
    close: async (queryMsMax) => {
      inserts.stop();
      queries.stop();
      const late = setTimeout(() => {
        for (const mark of running.keys()) cancel(sessions, running, mark);
      }, queryMsMax);
      await Promise.all([inserts.idle(), queries.idle()]);
      clearTimeout(late);
      await sessions.close();
    },
  };
}

async function enter<T>(lane: Lane, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const leave = await lane.enter(signal);
  try {
    return await work();
  } finally {
    leave();
  }
}

/** What runs besides inserts, by mark, and whether somebody is cancelling it already. */
type Running = Map<string, boolean>;

/** Gives a statement its mark, a setting that nothing else uses. */
function begin(running: Running, scope: Scope): { mark: string; marked: Scope } {
  const mark = randomUUID();
  running.set(mark, false);
  return { mark, marked: { ...scope, settings: new Map(scope.settings).set('log_comment', mark) } };
}

/**
 * Cancels a query. Its mark is a setting of the query, and the only thing by which chdb can tell
 * it from others. A query that is only about to start is not there to be killed, and would then run
 * for as long as it likes in one of few places: so the kill is repeated until the query has ended.
 */
function cancel(sessions: Sessions, running: Running, mark: string): void {
  if (running.get(mark) !== false) return;
  running.set(mark, true);
  const statement = `KILL QUERY WHERE Settings['log_comment'] = ${sqlString(mark)} ASYNC`;
  const kill = async (): Promise<void> => {
    while (running.has(mark)) {
      await sessions.own(statement);
      await delay(killAgainMs);
    }
  };
  // A kill fails where the engine does, and then the query tells of it.
  kill().catch(() => undefined);
}

/**
 * Runs a SELECT into a file. Memory stays bounded however large the result is, a client that reads
 * slowly holds no place in the engine, and an error half-way is still a clean error answer. (chdb's
 * own stream plans on the main thread, and a scalar subquery would stop the whole server.)
 */
async function selectToFile(
  sessions: Sessions,
  spool: Spool,
  sql: string,
  statement: Extract<Statement, { kind: 'select' }>,
  format: string,
  scope: Scope,
): Promise<SelectDone> {
  const file = spool.path();
  const into = `INTO OUTFILE ${sqlString(file)}`;
  const head = sql.slice(0, statement.into);
  const tail =
    statement.format === undefined ? `FORMAT ${format}` : sql.slice(statement.into, statement.end);
  const settings = new Map(scope.settings);
  if (!settings.has('max_result_bytes')) settings.set('max_result_bytes', String(resultBytesMax));
  try {
    const result = await sessions.within({ ...scope, settings }, true, async (query) => {
      try {
        return await query(`${head}\n${into} ${tail}`);
      } catch (thrown) {
        if (toFault(thrown).code !== syntaxErrorCode) throw thrown;
        // The text that the client sent, so that the message quotes it and not ours. Should it be
        // right without INTO OUTFILE only, its result takes the way through memory.
        const whole = await query(sql.slice(0, statement.end), format);
        await writeFile(file, whole.bytes());
        return whole;
      }
    });
    const handle = await open(file, 'r');
    const { size } = await handle.stat();
    return {
      file: handle,
      bytes: size,
      format,
      resultRows: result.rowsRead,
      elapsedSeconds: result.elapsed,
    };
  } finally {
    // On success the open handle keeps the bytes until they are sent.
    await spool.remove(file);
  }
}
