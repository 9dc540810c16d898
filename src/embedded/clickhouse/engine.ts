import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { sqlString } from '../../clickhouse-sql.ts';
import { analystQueriesMax, writeEngineConfig } from './access.ts';
import { type Connections, openConnections, type Scope } from './connections.ts';
import type { Guard } from './guard.ts';
import { type InsertDone, insertFile } from './insert.ts';
import { judge, openGuard } from './judge.ts';
import { createLane, goneFault, type Lane } from './lane.ts';
import { createResultBounds, type ResultBounds, type SelectDone, selectToFile } from './results.ts';
import type { InsertStatement } from './statement.ts';
import type { TemporaryFile, TemporaryFiles } from './temporary-files.ts';

interface OtherDone {
  kind: 'other';
  body: Uint8Array;
  format: string;
  elapsedSeconds: number;
}

/**
 * The engine behind the HTTP interface. Each statement gets a place to run and a scope of its own. An
 * aborted signal takes a statement out of the queue, and cancels a SELECT that runs.
 */
export interface Engine {
  insert(
    statement: InsertStatement,
    rows: TemporaryFile,
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
  /**
   * Refuses statements that wait, lets those finish that run, and closes. After `queryMsMax` it cancels
   * statements that still run, but no inserts.
   */
  close(queryMsMax: number): Promise<void>;
}

const waitingMax = 256;
const killAgainMs = 100;

/**
 * Opens the engine and its default database.
 *
 * Inserts run one at a time. That costs no throughput, since each takes the disk and a core, and it bounds
 * memory to one block. Everything else has `queriesMax` places of its own, so that no insert waits for an
 * analyst's long query. Each statement that runs holds one of libuv's threads, and files and gzip need one
 * as well. So UV_THREADPOOL_SIZE (4 by default) must be at least `queriesMax` + 2.
 *
 * @throws if the directory cannot be opened, for instance because another process holds it.
 */
export async function openEngine(options: {
  directory: string;
  /** Takes the configuration that the engine is started with. */
  configFolder: string;
  database: string;
  files: TemporaryFiles;
  queriesMax: number;
  /** Bound of a result, in bytes as they are written. */
  resultBytesMax: number;
}): Promise<Engine> {
  const { files, queriesMax } = options;
  const connections = await openConnections(
    options.directory,
    writeEngineConfig(options.configFolder),
  );
  // Only now is it certain that no other process uses the folder.
  files.clear();
  await connections.own(`CREATE DATABASE IF NOT EXISTS \`${options.database}\``);
  const lanes = {
    inserts: createLane({ runningMax: 1, waitingMax }),
    queries: createLane({ runningMax: queriesMax, waitingMax }),
    // Tools take half of the places at most, so that Core always finds one.
    analysts: createLane({
      runningMax: Math.min(analystQueriesMax, Math.ceil(queriesMax / 2)),
      waitingMax,
    }),
  };
  const guard = await openGuard(connections);
  const running: Running = new Map();
  const bounds = createResultBounds(options.resultBytesMax);
  const parts: Parts = { connections, files, guard, bounds, running };

  return {
    insert: (statement, rows, scope, signal) =>
      inLane(lanes.inserts, signal, () => {
        guard.checkSettings(scope);
        return insertFile(connections, guard, statement, rows, scope);
      }),
    run: (sql, format, scope, signal) => {
      const run = () =>
        inLane(lanes.queries, signal, () => runStatement(parts, sql, format, scope, signal));
      return scope.account === 'analyst' ? inLane(lanes.analysts, signal, run) : run();
    },
    close: async (queryMsMax) => {
      for (const lane of Object.values(lanes)) lane.stop();
      const late = setTimeout(() => {
        for (const mark of running.keys()) cancel(connections, running, mark);
      }, queryMsMax);
      await Promise.all(Object.values(lanes).map((lane) => lane.idle()));
      clearTimeout(late);
      await connections.close();
    },
  };
}

async function inLane<T>(lane: Lane, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const leave = await lane.enter(signal);
  try {
    return await work();
  } finally {
    leave();
  }
}

interface Parts {
  connections: Connections;
  files: TemporaryFiles;
  guard: Guard;
  bounds: ResultBounds;
  running: Running;
}

/** Judges a statement that brings no rows, and runs what was judged. */
async function runStatement(
  parts: Parts,
  sql: string,
  defaultFormat: string,
  scope: Scope,
  signal: AbortSignal,
): Promise<SelectDone | OtherDone> {
  const { connections, files, guard, bounds, running } = parts;
  guard.checkSettings(scope);
  bounds.requireRoom(scope.account);
  const judged = await judge(connections, guard, sql, scope);
  // A client that went away in the meantime is not reported again.
  if (signal.aborted) throw goneFault();
  const { statement, text } = judged;
  const { mark, marked } = begin(running, judged.scope);
  const onAbort = (): void => cancel(connections, running, mark);
  try {
    if (statement.kind === 'other') {
      return await runOther(connections, text, statement.format ?? defaultFormat, marked);
    }
    signal.addEventListener('abort', onAbort, { once: true });
    return await selectToFile(
      { connections, files, bounds, cancel: onAbort },
      { sql: text, statement, defaultFormat, scope: marked },
    );
  } finally {
    signal.removeEventListener('abort', onAbort);
    running.delete(mark);
  }
}

async function runOther(
  connections: Connections,
  text: string,
  format: string,
  scope: Scope,
): Promise<OtherDone> {
  return connections.within(scope, false, async (query) => {
    const result = await query(text, format);
    return { kind: 'other', body: result.bytes(), format, elapsedSeconds: result.elapsed };
  });
}

/** The statements that run, except inserts: by mark, whether each is being cancelled already. */
type Running = Map<string, boolean>;

/** Gives a statement its mark, by a setting that nothing else uses. */
function begin(running: Running, scope: Scope): { mark: string; marked: Scope } {
  const mark = randomUUID();
  running.set(mark, false);
  return { mark, marked: { ...scope, settings: new Map(scope.settings).set('log_comment', mark) } };
}

/**
 * Cancels a query by its mark, because chdb can tell it from others only by that. A query that is about to
 * start cannot be killed yet, and would then hold one of few places without a bound. So the kill is
 * repeated until the query has ended.
 */
function cancel(connections: Connections, running: Running, mark: string): void {
  if (running.get(mark) !== false) return;
  running.set(mark, true);
  const statement = `KILL QUERY WHERE Settings['log_comment'] = ${sqlString(mark)} ASYNC`;
  const kill = async (): Promise<void> => {
    while (running.has(mark)) {
      await connections.own(statement);
      await delay(killAgainMs);
    }
  };
  // A kill fails only if the engine does, and then the query itself reports that.
  kill().catch(() => undefined);
}
