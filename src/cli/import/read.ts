import { createReadStream } from 'node:fs';
import { CsvError, type Parser, parse } from 'csv-parse';
import { CoreError } from '../../errors.ts';
import type { ImportLine } from '../../subscriptions/import.ts';
import { type ImportColumn, importColumns, isImportColumn, toSubscription } from './row.ts';
import { splitLines } from './split-lines.ts';

export const importFormats = ['csv', 'ndjson'] as const;
export type ImportFormat = (typeof importFormats)[number];

/** Longest record, so that a file without line ends cannot fill the memory. */
const recordBytesMax = 65_536;

/**
 * The lines of an import file, a few at a time. What is wrong with one line is that line's fault; a
 * file that cannot be read at all, or a CSV header with unknown columns, fails the whole.
 * @throws CoreError INVALID_ARGUMENT.
 */
export async function* readImport(file: string, format: ImportFormat): AsyncGenerator<ImportLine> {
  try {
    yield* format === 'csv' ? readCsv(file) : readNdjson(file);
  } catch (thrown) {
    if (thrown instanceof CoreError) throw thrown;
    const { code } = thrown as NodeJS.ErrnoException;
    if (!(thrown instanceof CsvError) && code === undefined) throw thrown;
    const message = `${file} cannot be read: ${(thrown as Error).message}`;
    throw new CoreError('INVALID_ARGUMENT', message, { cause: thrown });
  }
}

async function* readCsv(file: string): AsyncGenerator<ImportLine> {
  let header: ImportColumn[] | undefined;
  for await (const { line, record } of readRecords(file)) {
    if (header === undefined) {
      header = readHeader(record);
      continue;
    }
    if (record.length !== header.length) {
      yield { line, fault: `${record.length} columns instead of ${header.length}` };
      continue;
    }
    const columns = header;
    yield toLine(line, () => Object.fromEntries(columns.map((name, at) => [name, record[at]])));
  }
  if (header === undefined) {
    throw new CoreError('INVALID_ARGUMENT', `${file} is empty: a header is needed`);
  }
}

async function* readRecords(file: string): AsyncGenerator<{ line: number; record: string[] }> {
  const input = createReadStream(file);
  const parser: Parser = parse({
    bom: true,
    info: true,
    relax_column_count: true,
    relax_quotes: true,
    skip_empty_lines: true,
    max_record_size: recordBytesMax,
  });
  input.on('error', (error) => parser.destroy(error));
  input.pipe(parser);
  try {
    // `lines` is how many lines have been read at the record's end; a quoted value may hold some.
    for await (const { record, info } of parser as AsyncIterable<{
      record: string[];
      info: { lines: number };
    }>) {
      yield { line: info.lines, record };
    }
  } finally {
    input.destroy();
  }
}

function readHeader(record: readonly string[]): ImportColumn[] {
  const names = record.map((name) => name.trim().toLowerCase());
  const columns = names.filter(isImportColumn);
  const wrong = names.filter((name) => !isImportColumn(name));
  if (wrong.length > 0) {
    throw new CoreError(
      'INVALID_ARGUMENT',
      `The header has unknown columns: ${wrong.join(', ')}; known are ${importColumns.join(', ')}`,
    );
  }
  if (new Set(columns).size < columns.length) {
    throw new CoreError('INVALID_ARGUMENT', 'The header names a column twice');
  }
  if (!columns.includes('user') && !columns.includes('user_id')) {
    throw new CoreError('INVALID_ARGUMENT', 'The header has neither user nor user_id');
  }
  return columns;
}

async function* readNdjson(file: string): AsyncGenerator<ImportLine> {
  for await (const { line, text } of splitLines(createReadStream(file), recordBytesMax)) {
    if (text === undefined) yield { line, fault: `over ${recordBytesMax} bytes` };
    else if (text.trim() !== '') yield toLine(line, () => readObject(text));
  }
}

/** Numbers and text; anything else is a fault. */
function readObject(text: string): Record<string, string | undefined> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error('not valid JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error('not a JSON object');
  }
  const values: Record<string, string | undefined> = {};
  for (const [name, field] of Object.entries(value)) {
    if (!isImportColumn(name)) throw new Error(`${name}: unknown field`);
    if (field === null) continue;
    if (typeof field !== 'string' && typeof field !== 'number') {
      throw new Error(`${name}: neither text nor a number`);
    }
    values[name] = String(field);
  }
  return values;
}

function toLine(line: number, values: () => Record<string, string | undefined>): ImportLine {
  try {
    return { line, subscription: toSubscription(values() as Parameters<typeof toSubscription>[0]) };
  } catch (thrown) {
    return { line, fault: (thrown as Error).message };
  }
}
