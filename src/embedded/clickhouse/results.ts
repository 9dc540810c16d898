import { type FileHandle, open, stat, writeFile } from 'node:fs/promises';
import { sqlString } from '../../clickhouse-sql.ts';
import type { Account } from './access.ts';
import type { Connections, Scope } from './connections.ts';
import { clickhouseFault, syntaxErrorCode, toFault } from './fault.ts';
import type { Statement } from './statement.ts';
import type { TemporaryFiles } from './temporary-files.ts';

export interface SelectDone {
  kind: 'select';
  /** The result. The file has no name any more: closing it frees its bytes. */
  file: FileHandle;
  bytes: number;
  format: string;
  resultRows: number;
  elapsedSeconds: number;
  /** Call it once the result was sent, or will not be sent. */
  release: () => void;
}

/**
 * Bounds on the files that hold results until they are sent. The engine bounds only the memory of a result,
 * and there a text that is the same in each row counts once. 100 million rows with the same kilobyte are
 * small in memory and 100 GB on the disk, which Core's stores need.
 */
export interface ResultBounds {
  /** @throws 202 if results that their clients have not read fill their bound. Core is never refused. */
  requireRoom(account: Account): void;
  /**
   * Watches a file that a query writes, and calls `cancel` once it is over the bound. `stop` ends the
   * watch, and returns the fault if the file was over the bound.
   */
  watch(file: string, cancel: () => void): { stop(): Error | undefined };
  /** Counts a result that is to be sent, until the returned function is called. */
  hold(bytes: number): () => void;
}

/** A disk writes some 100 MB in this time. */
const watchEveryMs = 100;

/** `bytesMax` bounds one result, and twice that bounds all results that wait for their clients. */
export function createResultBounds(bytesMax: number): ResultBounds {
  let heldBytes = 0;
  return {
    requireRoom: (account) => {
      if (account === 'core' || heldBytes < 2 * bytesMax) return;
      throw clickhouseFault(
        202,
        'TOO_MANY_SIMULTANEOUS_QUERIES',
        'Too many bytes of results wait to be read by their clients.',
        { retryAfterSeconds: 5 },
      );
    },
    watch: (file, cancel) => {
      let fault: Error | undefined;
      const check = async (): Promise<void> => {
        // There is no file until the query begins to write.
        const bytes = await stat(file).then(
          ({ size }) => size,
          () => 0,
        );
        if (bytes <= bytesMax || fault !== undefined) return;
        fault = tooLargeFault(bytesMax);
        cancel();
      };
      const timer = setInterval(() => void check(), watchEveryMs);
      return {
        stop: () => {
          clearInterval(timer);
          return fault;
        },
      };
    },
    hold: (bytes) => {
      heldBytes += bytes;
      let isHeld = true;
      return () => {
        if (isHeld) heldBytes -= bytes;
        isHeld = false;
      };
    },
  };
}

/**
 * Runs a SELECT into a file. So memory stays bounded even for a large result, a client that reads slowly
 * holds no place in the engine, and an error half-way is still a clean error answer. chdb's own stream
 * cannot be used: it plans on the main thread, and there a scalar subquery would stop the whole server.
 */
export async function selectToFile(
  through: {
    connections: Connections;
    files: TemporaryFiles;
    bounds: ResultBounds;
    cancel: () => void;
  },
  select: {
    sql: string;
    statement: Extract<Statement, { kind: 'select' }>;
    defaultFormat: string;
    scope: Scope;
  },
): Promise<SelectDone> {
  const { connections, files, bounds, cancel } = through;
  const { sql, statement, scope } = select;
  const format = statement.format ?? select.defaultFormat;
  const file = files.path();
  const watched = bounds.watch(file, cancel);
  try {
    const result = await connections.within(scope, true, async (query) => {
      try {
        return await query(withOutfile(sql, statement, file, format));
      } catch (thrown) {
        if (toFault(thrown).code !== syntaxErrorCode) throw thrown;
        // Some statements are valid only without INTO OUTFILE. Their result goes through memory.
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
      release: bounds.hold(size),
    };
  } catch (thrown) {
    throw watched.stop() ?? thrown;
  } finally {
    // After a success the open handle keeps the bytes until they are sent.
    await files.remove(file);
  }
}

function withOutfile(
  sql: string,
  statement: Extract<Statement, { kind: 'select' }>,
  file: string,
  format: string,
): string {
  const head = sql.slice(0, statement.into);
  const tail =
    statement.format === undefined ? `FORMAT ${format}` : sql.slice(statement.into, statement.end);
  return `${head}\nINTO OUTFILE ${sqlString(file)} ${tail}`;
}

function tooLargeFault(bytesMax: number): Error {
  return clickhouseFault(
    396,
    'TOO_MANY_ROWS_OR_BYTES',
    `Limit for result exceeded, max bytes: ${bytesMax} as it is written`,
    { status: 400 },
  );
}
