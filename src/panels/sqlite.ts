import { copyFile, mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sqlite from 'node-sqlite3-wasm';
import { CoreError } from '../errors.ts';

export type SqliteValue = number | bigint | string | Uint8Array | null;
export type SqliteRow = Record<string, SqliteValue>;

/** A database to read. It is a copy, so indexes may be added and the panel's file is never written. */
export interface SqliteFile {
  /** Whether there is a table with these columns. */
  has(table: string, ...columns: string[]): boolean;
  run(sql: string, values?: SqliteValue[]): void;
  rows(sql: string): Generator<SqliteRow>;
  warnings: string[];
  close(): Promise<void>;
}

/** Bytes at the beginning of every SQLite file. */
const magic = 'SQLite format 3\0';
const fileBytesMax = 4_294_967_296;

/** Whether the file is an SQLite database. */
export async function isSqlite(file: string): Promise<boolean> {
  return (await readStart(file, magic.length)).toString('latin1') === magic;
}

/**
 * Opens a copy of a database file, together with its write-ahead log, which holds the newest writes of a
 * panel that runs.
 * @throws CoreError INVALID_ARGUMENT if the file is damaged, too large, or changes meanwhile.
 */
export async function openSqlite(file: string): Promise<SqliteFile> {
  const folder = await mkdtemp(path.join(tmpdir(), 'core-import-'));
  try {
    const copy = path.join(folder, 'panel.db');
    const hasLog = await copyDatabase(file, copy);
    const warnings = (await usesLog(file)) && !hasLog ? [missingLog(file)] : [];
    return openCopy(file, copy, warnings, () => rm(folder, { recursive: true, force: true }));
  } catch (thrown) {
    await rm(folder, { recursive: true, force: true });
    throw thrown;
  }
}

/** A new database in a temporary folder. */
export async function createSqlite(): Promise<SqliteFile> {
  const folder = await mkdtemp(path.join(tmpdir(), 'core-import-'));
  const remove = () => rm(folder, { recursive: true, force: true });
  return openCopy('', path.join(folder, 'panel.db'), [], remove);
}

function openCopy(
  file: string,
  copy: string,
  warnings: string[],
  remove: () => Promise<void>,
): SqliteFile {
  const db = new sqlite.Database(copy);
  try {
    // Without shared memory SQLite reads a write-ahead log only if nobody else may open the file.
    db.exec('PRAGMA locking_mode = EXCLUSIVE');
    // A schema is data of a stranger.
    db.exec('PRAGMA trusted_schema = OFF');
    db.exec('PRAGMA temp_store = MEMORY');
    const checked = db.get('PRAGMA quick_check(1)') as SqliteRow | null;
    if (Object.values(checked ?? {})[0] !== 'ok') throw new Error(String(checked?.['quick_check']));
  } catch (cause) {
    db.close();
    throw damaged(file, cause);
  }
  return {
    warnings,
    has(table, ...columns) {
      const found = db.all("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [
        table,
      ]);
      if (found.length === 0) return false;
      const names = db.all(`SELECT name FROM pragma_table_info('${table}')`) as SqliteRow[];
      return columns.every((column) => names.some(({ name }) => name === column));
    },
    run(sql, values) {
      try {
        db.run(sql, values);
      } catch (cause) {
        throw damaged(file, cause);
      }
    },
    *rows(sql) {
      const statement = db.prepare(sql);
      try {
        yield* statement.iterate() as IterableIterator<SqliteRow>;
      } catch (cause) {
        throw damaged(file, cause);
      } finally {
        statement.finalize();
      }
    },
    close() {
      db.close();
      return remove();
    },
  };
}

/** @returns whether there is a write-ahead log. */
async function copyDatabase(file: string, copy: string): Promise<boolean> {
  const names = ['', '-wal', '-journal'];
  const before = await Promise.all(names.map((end) => describe(`${file}${end}`)));
  if ((before[0]?.size ?? 0) > fileBytesMax) {
    throw new CoreError('INVALID_ARGUMENT', `${file} has over ${fileBytesMax} bytes`);
  }
  for (const [at, end] of names.entries()) {
    if (before[at] !== undefined) await copyFile(`${file}${end}`, `${copy}${end}`);
  }
  const after = await Promise.all(names.map((end) => describe(`${file}${end}`)));
  if (JSON.stringify(after) !== JSON.stringify(before)) {
    const message = `${file} changed while it was read. Stop the panel, or copy the file with: sqlite3 ${file} ".backup copy.db"`;
    throw new CoreError('INVALID_ARGUMENT', message);
  }
  return (before[1]?.size ?? 0) > 0;
}

async function describe(file: string): Promise<{ size: number; mtimeMs: number } | undefined> {
  try {
    const { size, mtimeMs } = await stat(file);
    return { size, mtimeMs };
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw thrown;
  }
}

/** Byte 18 is 2 in a database that has a write-ahead log while it is in use. */
async function usesLog(file: string): Promise<boolean> {
  return (await readStart(file, 20))[18] === 2;
}

function missingLog(file: string): string {
  return `there is no ${path.basename(file)}-wal beside the file. If the panel ran when the file was copied, its newest changes are missing`;
}

function damaged(file: string, cause: unknown): CoreError {
  const message = `${file} cannot be read as an SQLite database: ${(cause as Error).message}. If it was copied while the panel ran, copy it with: sqlite3 FILE ".backup copy.db"`;
  return new CoreError('INVALID_ARGUMENT', message, { cause });
}

async function readStart(file: string, bytes: number): Promise<Buffer> {
  const handle = await open(file, 'r');
  try {
    const buffer = Buffer.alloc(bytes);
    const { bytesRead } = await handle.read(buffer, 0, bytes, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}
