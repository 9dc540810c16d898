import { randomUUID } from 'node:crypto';
import { type FileHandle, open, writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { sqlString } from '../../clickhouse-sql.ts';
import { analystQueriesMax, writeEngineConfig } from './access.ts';
import { toFault } from './fault.ts';
import { type InsertDone, insertFile } from './insert.ts';
import { judge, openGuard } from './judge.ts';
import { createLane, goneFault, type Lane } from './lane.ts';
import { createResults, type Results } from './results.ts';
import { openSessions, type Scope, type Sessions } from './sessions.ts';
import type { Spool, SpooledFile } from './spool.ts';
import type { InsertStatement, Statement } from './statement.ts';

export interface SelectDone {
  kind: 'select';
  /** The result, in a file that has no name any more: closing it frees its bytes. */
  file: FileHandle;
  bytes: number;
  format: string;
  resultRows: number;
  elapsedSeconds: number;
  /** To be called once the result was sent, or will not be. */
  release: () => void;
}

export interface OtherDone {
  kind: 'other';
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
  /**
   * Runs a statement that brings no rows. `defaultFormat` is for one that names no format.
   * @throws the guard's refusal, or the engine's error.
   */
  run(
    sql: string,
    defaultFormat: string,
    scope: Scope,
    signal: AbortSignal,
  ): Promise<SelectDone | OtherDone>;
  /** Refuses what waits, lets what runs finish, all but inserts within `queryMsMax`, and closes. */
  close(queryMsMax: number): Promise<void>;
}

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
  /** Where the engine's own settings are written to. */
  configFolder: string;
  database: string;
  spool: Spool;
  queriesMax: number;
  /** Bound of a result, as it is written. */
  resultBytesMax: number;
}): Promise<Engine> {
  const sessions = await openSessions(options.directory, writeEngineConfig(options.configFolder));
  const { spool } = options;
  // Only now is it certain that no other process uses the folder.
  spool.clear();
  const name = `\`${options.database}\``;
  await sessions.own(`CREATE DATABASE IF NOT EXISTS ${name}`);
  const inserts = createLane({ runningMax: 1, waitingMax: 256 });
  const queries = createLane({ runningMax: options.queriesMax, waitingMax: 256 });
  // Tools take half of the places at most, so that Core always finds one.
  const analysts = createLane({
    runningMax: Math.min(analystQueriesMax, Math.ceil(options.queriesMax / 2)),
    waitingMax: 256,
  });
  const guard = await openGuard(sessions);
  const running: Running = new Map();
  const results = createResults(options.resultBytesMax);

  const runIn = (sql: string, format: string, scope: Scope, signal: AbortSignal) =>
    enter(queries, signal, async () => {
      guard.checkSettings(scope);
      results.requireRoom(scope.account);
      const judged = await judge(sessions, guard, sql, scope);
      // Who went away meanwhile will not be told of again.
      if (signal.aborted) throw goneFault();
      const { statement, text } = judged;
      const { mark, marked } = begin(running, judged.scope);
      const onAbort = (): void => cancel(sessions, running, mark);
      if (statement.kind === 'select') signal.addEventListener('abort', onAbort, { once: true });
      try {
        return statement.kind === 'select'
          ? await selectToFile(
              { sessions, spool, results, cancel: onAbort },
              { sql: text, statement, defaultFormat: format, scope: marked },
            )
          : await runOther(sessions, text, statement.format ?? format, marked);
      } finally {
        signal.removeEventListener('abort', onAbort);
        running.delete(mark);
      }
    });

  return {
    insert: (statement, rows, scope, signal) =>
      enter(inserts, signal, () => {
        guard.checkSettings(scope);
        return insertFile(sessions, guard, statement, rows, scope);
      }),
    run: (sql, format, scope, signal) =>
      scope.account === 'analyst'
        ? enter(analysts, signal, () => runIn(sql, format, scope, signal))
        : runIn(sql, format, scope, signal),
    close: async (queryMsMax) => {
      inserts.stop();
      analysts.stop();
      queries.stop();
      const late = setTimeout(() => {
        for (const mark of running.keys()) cancel(sessions, running, mark);
      }, queryMsMax);
      await Promise.all([inserts.idle(), analysts.idle(), queries.idle()]);
      clearTimeout(late);
      await sessions.close();
    },
  };
}

async function runOther(
  sessions: Sessions,
  text: string,
  format: string,
  scope: Scope,
): Promise<OtherDone> {
  return sessions.within(scope, false, async (query) => {
    const result = await query(text, format);
    return { kind: 'other', body: result.bytes(), format, elapsedSeconds: result.elapsed };
  });
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
  within: { sessions: Sessions; spool: Spool; results: Results; cancel: () => void },
  asked: {
    sql: string;
    statement: Extract<Statement, { kind: 'select' }>;
    defaultFormat: string;
    scope: Scope;
  },
): Promise<SelectDone> {
  const { sessions, spool, results, cancel } = within;
  const { sql, statement, defaultFormat, scope } = asked;
  const file = spool.path();
  const into = `INTO OUTFILE ${sqlString(file)}`;
  const head = sql.slice(0, statement.into);
  const format = statement.format ?? defaultFormat;
  const tail =
    statement.format === undefined ? `FORMAT ${format}` : sql.slice(statement.into, statement.end);
  const watched = results.watch(file, cancel);
  try {
    const result = await sessions.within(scope, true, async (query) => {
      try {
        return await query(`${head}\n${into} ${tail}`);
      } catch (thrown) {
        if (toFault(thrown).code !== syntaxErrorCode) throw thrown;
        // Should it be right without INTO OUTFILE only, its result takes the way through memory.
        const whole = await query(sql.slice(0, statement.end), format);
        await writeFile(file, whole.bytes());
        return whole;
      }
    });
    const fault = watched.stop();
    if (fault !== undefined) throw fault;
    const handle = await open(file, 'r');
    const { size } = await handle.stat();
    return {
      kind: 'select',
      file: handle,
      bytes: size,
      format,
      resultRows: result.rowsRead,
      elapsedSeconds: result.elapsed,
      release: results.hold(size),
    };
  } catch (thrown) {
    throw watched.stop() ?? thrown;
  } finally {
    // On success the open handle keeps the bytes until they are sent.
    await spool.remove(file);
  }
}
