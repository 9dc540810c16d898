import { readFile } from 'node:fs/promises';
import { sqlName, sqlString } from '../../clickhouse-sql.ts';
import { clickhouseFault } from './fault.ts';
import type { Guard } from './guard.ts';
import { type Query, type Scope, type Sessions, setRole } from './sessions.ts';
import type { SpooledFile } from './spool.ts';
import { columnNames, type InsertStatement, insertTarget } from './statement.ts';

export interface InsertDone {
  /** Rows that the engine wrote, copies in materialized views included. */
  writtenRows: bigint;
  writtenBytes: bigint;
  elapsedSeconds: number;
}

interface Column {
  name: string;
  type: string;
  defaultType: string;
  defaultExpression: string;
}

/**
 * What a request cannot change. One thread reads the file and one writes, so that the order holds
 * and the rows of a partition make one block and one part. The rows are not taken from a queue of
 * the server's, so an answer means that they are written. A token counts although the rows come
 * from a SELECT, and so does the content where there is no token: as for any INSERT.
 */
const forced: readonly [string, string][] = [
  ['async_insert', '0'],
  ['deduplicate_insert_select', 'enable_even_for_bad_queries'],
  ['engine_file_empty_if_not_exists', '0'],
  ['engine_file_skip_empty_files', '0'],
  ['input_format_parallel_parsing', '0'],
  ['max_insert_threads', '1'],
  ['max_threads', '1'],
];

/** Where a request says nothing: blocks as large as a body within its bound can make them. */
const blockRows = String(16 * 1024 * 1024);
const defaults: readonly [string, string][] = [
  ['max_insert_block_size', blockRows],
  ['min_insert_block_size_rows', blockRows],
  ['min_insert_block_size_bytes', String(1024 ** 3)],
];

/**
 * Inserts the rows of a file, all or none of each block. chdb's own insert of a body cuts binary
 * rows short, so the engine reads the file itself, by the structure of the target table at this
 * moment. Nothing of the statement reaches the engine as it was written: names are quoted anew and
 * settings were checked, for this is the one statement that may read a file.
 */
export async function insertFile(
  sessions: Sessions,
  guard: Guard,
  statement: InsertStatement,
  rows: SpooledFile,
  scope: Scope,
): Promise<InsertDone> {
  const table = insertTarget(statement);
  const clause =
    statement.settings === undefined ? [] : guard.readClause(statement.settings, scope.account);
  const values = await valuesSettings(guard, statement, rows);
  const settings = new Map([...defaults, ...scope.settings, ...clause, ...values, ...forced]);
  // Read in one go what is written in one go: a token counts for each block that is read, so only
  // then does the second of two inserts with one token not depend on how many rows the first had.
  settings.set('max_block_size', settings.get('max_insert_block_size') ?? blockRows);
  return sessions.within({ ...scope, settings }, true, async (query) => {
    const columns = await columnsOf(query, statement, table);
    if (rows.bytes === 0) return { writtenRows: 0n, writtenBytes: 0n, elapsedSeconds: 0 };
    const before = await insertedSoFar(sessions.own);
    const names = columns.map((column) => sqlName(column.name)).join(', ');
    const target = statement.isFunction ? `FUNCTION ${table}` : table;
    const source = [rows.path, statement.format, structureOf(columns)].map(sqlString).join(', ');
    const result = await query(
      `${setRole('loader')}; INSERT INTO ${target} (${names}) SELECT * FROM file(${source})`,
    );
    const after = await insertedSoFar(sessions.own);
    return {
      writtenRows: after.rows - before.rows,
      writtenBytes: after.bytes - before.bytes,
      elapsedSeconds: result.elapsed,
    };
  });
}

const expressionBytesMax = 1024 * 1024;

/**
 * The format Values runs expressions, `(1 + 1)`, with the right to read files, and a subquery is one.
 * So it does that only for text in which no query can stand and no refused function can be named,
 * however that is quoted or escaped. Plain values are read in any case.
 */
async function valuesSettings(
  guard: Guard,
  statement: InsertStatement,
  rows: SpooledFile,
): Promise<[string, string][]> {
  if (statement.format.toLowerCase() !== 'values') return [];
  const text = rows.bytes > expressionBytesMax ? '"' : await readFile(rows.path, 'latin1');
  // U+201C quotes a name as well.
  const allowed = !/["`\xe2]/.test(text) && !guard.mayReachOut(text);
  const flag = allowed ? '1' : '0';
  return [
    ['input_format_values_interpret_expressions', flag],
    ['input_format_values_deduce_templates_of_expressions', flag],
  ];
}

/** The columns that the file holds, in its order: those listed, or all that can be inserted. */
async function columnsOf(
  query: Query,
  statement: InsertStatement,
  table: string,
): Promise<Column[]> {
  const described = await query(
    `DESCRIBE TABLE ${table} SETTINGS describe_include_subcolumns = 0`,
    'JSONCompactEachRow',
  );
  const all = described
    .text()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [name, type, defaultType, defaultExpression] = JSON.parse(line) as string[];
      return {
        name: name ?? '',
        type: type ?? '',
        defaultType: defaultType ?? '',
        defaultExpression: defaultExpression ?? '',
      };
    });
  // In the structure of a function they would be expressions that nobody has looked at.
  if (statement.isFunction && all.some((column) => column.defaultType !== '')) {
    throw clickhouseFault(497, 'ACCESS_DENIED', 'A structure with expressions is refused.');
  }
  if (statement.columns === undefined) {
    return all.filter((column) => column.defaultType === '' || column.defaultType === 'DEFAULT');
  }
  const listed = columnNames(statement.columns);
  if (listed === undefined) {
    throw clickhouseFault(
      48,
      'NOT_IMPLEMENTED',
      'The embedded server takes plain names only in the column list of an INSERT.',
    );
  }
  return listed.map((name) => {
    const column = all.find((one) => one.name === name);
    if (column !== undefined && column.defaultType !== 'ALIAS') return column;
    throw clickhouseFault(
      16,
      'NO_SUCH_COLUMN_IN_TABLE',
      `No such column ${name} in table ${statement.target}`,
    );
  });
}

/** Defaults are part of the structure, so that formats which may leave fields out get them. */
function structureOf(columns: readonly Column[]): string {
  return columns
    .map(({ name, type, defaultType, defaultExpression }) => {
      const declared = `${sqlName(name)} ${type}`;
      return defaultType === 'DEFAULT' ? `${declared} DEFAULT ${defaultExpression}` : declared;
    })
    .join(', ');
}

/** The engine's own count. Only INSERT … SELECT by somebody else in the same moment blurs it. */
async function insertedSoFar(own: Query): Promise<{ rows: bigint; bytes: bigint }> {
  const counted = await own(
    `SELECT sumIf(value, event = 'InsertedRows'), sumIf(value, event = 'InsertedBytes')
     FROM system.events`,
    'TSV',
  );
  const [rows = '0', bytes = '0'] = counted.text().trim().split('\t');
  return { rows: BigInt(rows), bytes: BigInt(bytes) };
}
