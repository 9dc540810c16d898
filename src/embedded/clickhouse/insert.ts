import { readFile } from 'node:fs/promises';
import { sqlName, sqlString } from '../../clickhouse-sql.ts';
import { type Connections, type Query, type Scope, setRole } from './connections.ts';
import { clickhouseFault, deniedFault } from './fault.ts';
import type { Guard } from './guard.ts';
import { columnNames, type InsertStatement, insertTarget } from './statement.ts';
import type { TemporaryFile } from './temporary-files.ts';

export interface InsertDone {
  /** Rows that the engine wrote, including copies in materialized views. */
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
 * Settings that a request cannot change. One thread reads the file and one writes. So the order of the rows
 * stays, and the rows of a partition become one block and one part. No queue of the server takes the rows,
 * so an answer means that they are written. Deduplication works as for any INSERT, although the rows come
 * from a SELECT: by the token, or without one by the content.
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

/** Unless a request says otherwise, blocks are as large as a body within its bound can make them. */
const blockRows = String(16 * 1024 * 1024);
const defaults: readonly [string, string][] = [
  ['max_insert_block_size', blockRows],
  ['min_insert_block_size_rows', blockRows],
  ['min_insert_block_size_bytes', String(1024 ** 3)],
];

/**
 * Inserts the rows of a file, all or none of each block. chdb's own insert of a body cuts binary rows
 * short. So the engine reads the file itself, with the structure that the target table has now. This is the
 * only statement that may read a file. So no part of the client's text reaches the engine unchanged: the
 * front quotes names again and checks settings.
 */
export async function insertFile(
  connections: Connections,
  guard: Guard,
  statement: InsertStatement,
  rows: TemporaryFile,
  scope: Scope,
): Promise<InsertDone> {
  const table = insertTarget(statement);
  const clause =
    statement.settings === undefined ? [] : guard.readClause(statement.settings, scope.account);
  const values = await valuesSettings(guard, statement, rows);
  const settings = new Map([...defaults, ...scope.settings, ...clause, ...values, ...forced]);
  // A token counts for each block that is read. So the engine reads as many rows at once as it writes.
  // Otherwise the second of two inserts with one token would depend on how many rows the first one has.
  settings.set('max_block_size', settings.get('max_insert_block_size') ?? blockRows);
  return connections.within({ ...scope, settings }, true, async (query) => {
    const columns = await columnsOf(query, statement, table);
    if (rows.bytes === 0) return { writtenRows: 0n, writtenBytes: 0n, elapsedSeconds: 0 };
    const before = await insertedSoFar(connections.own);
    const names = columns.map((column) => sqlName(column.name)).join(', ');
    const target = statement.isFunction ? `FUNCTION ${table}` : table;
    const source = [rows.path, statement.format, structureOf(columns)].map(sqlString).join(', ');
    const result = await query(
      `${setRole('loader')}; INSERT INTO ${target} (${names}) SELECT * FROM file(${source})`,
    );
    const after = await insertedSoFar(connections.own);
    return {
      writtenRows: after.rows - before.rows,
      writtenBytes: after.bytes - before.bytes,
      elapsedSeconds: result.elapsed,
    };
  });
}

const expressionBytesMax = 1024 * 1024;

/**
 * The format Values runs expressions such as `(1 + 1)` or a subquery, and here it would run them with the
 * right to read files. So expressions are allowed only in a text that cannot hold a query or the name of a
 * refused function, however it is quoted or escaped. Plain values are always read.
 */
async function valuesSettings(
  guard: Guard,
  statement: InsertStatement,
  rows: TemporaryFile,
): Promise<[string, string][]> {
  if (statement.format.toLowerCase() !== 'values') return [];
  const text = rows.bytes > expressionBytesMax ? '"' : await readFile(rows.path, 'latin1');
  // U+201C quotes a name as well, and its first byte is e2.
  const allowed = !/["`\xe2]/.test(text) && !guard.mayReachOut(text);
  const flag = allowed ? '1' : '0';
  return [
    ['input_format_values_interpret_expressions', flag],
    ['input_format_values_deduce_templates_of_expressions', flag],
  ];
}

/** The columns of the file, in its order: those that the INSERT lists, or all that can be inserted. */
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
  // In the structure of a function, defaults would be expressions that nobody has judged.
  if (statement.isFunction && all.some((column) => column.defaultType !== '')) {
    throw deniedFault('A structure with expressions is refused.');
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

/** The structure has the defaults, because in some formats a row may leave fields out. */
function structureOf(columns: readonly Column[]): string {
  return columns
    .map(({ name, type, defaultType, defaultExpression }) => {
      const declared = `${sqlName(name)} ${type}`;
      return defaultType === 'DEFAULT' ? `${declared} DEFAULT ${defaultExpression}` : declared;
    })
    .join(', ');
}

/** The engine's own count. It is too high if somebody runs INSERT … SELECT at the same time. */
async function insertedSoFar(own: Query): Promise<{ rows: bigint; bytes: bigint }> {
  const counted = await own(
    `SELECT sumIf(value, event = 'InsertedRows'), sumIf(value, event = 'InsertedBytes')
     FROM system.events`,
    'TSV',
  );
  const [rows = '0', bytes = '0'] = counted.text().trim().split('\t');
  return { rows: BigInt(rows), bytes: BigInt(bytes) };
}
