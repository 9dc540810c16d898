import { createReadStream } from 'node:fs';
import { CsvError, parse } from 'csv-parse/sync';
import { CoreError } from '../../errors.ts';
import type { ImportLine } from '../../subscriptions/import.ts';
import { type ImportColumn, importColumns, isImportColumn, toSubscription } from './row.ts';

export const importFormats = ['csv', 'ndjson'] as const;
export type ImportFormat = (typeof importFormats)[number];

const newline = 0x0a;
/** Bounds a line, so that a file without line ends cannot fill the memory. */
const lineBytesMax = 65_536;
const tooLong = { fault: `over ${lineBytesMax} bytes` };

/**
 * Reads the lines of an import file, a few at a time. A line that is wrong has a fault of its own.
 * @throws CoreError INVALID_ARGUMENT if the file cannot be read, or its CSV header has unknown columns.
 */
export async function* readImport(file: string, format: ImportFormat): AsyncGenerator<ImportLine> {
  try {
    yield* format === 'csv' ? readCsv(file) : readNdjson(file);
  } catch (thrown) {
    if (thrown instanceof CoreError) throw thrown;
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === undefined) throw thrown;
    const message = `${file} cannot be read: ${(thrown as Error).message}`;
    throw new CoreError('INVALID_ARGUMENT', message, { cause: thrown });
  }
}

async function* readCsv(file: string): AsyncGenerator<ImportLine> {
  let header: ImportColumn[] | undefined;
  for await (const { line, text } of splitLines(createReadStream(file), lineBytesMax)) {
    const record = text === undefined ? tooLong : readRecord(line === 1 ? withoutBom(text) : text);
    if (record === undefined) continue;
    if (header === undefined) {
      if ('fault' in record) {
        throw new CoreError('INVALID_ARGUMENT', `The header on line ${line}: ${record.fault}`);
      }
      header = readHeader(record);
      continue;
    }
    if ('fault' in record) {
      yield { line, fault: record.fault };
    } else if (record.length !== header.length) {
      yield { line, fault: `${record.length} columns instead of ${header.length}` };
    } else {
      const columns = header;
      yield toLine(line, () => Object.fromEntries(columns.map((name, at) => [name, record[at]])));
    }
  }
  if (header === undefined) {
    throw new CoreError('INVALID_ARGUMENT', `${file} is empty: a header is needed`);
  }
}

/**
 * The values of one line; undefined if the line is empty. Each line is parsed by itself, since no value
 * needs a line end. A quote that somebody forgot to close then cannot swallow the lines after it.
 */
function readRecord(text: string): string[] | { fault: string } | undefined {
  const line = text.endsWith('\r') ? text.slice(0, -1) : text;
  if (line === '') return undefined;
  // Most lines have no quotes, and need no parser.
  if (!line.includes('"')) return line.split(',');
  try {
    const [record] = parse(line, { record_delimiter: '\n' }) as string[][];
    return record;
  } catch (thrown) {
    if (!(thrown instanceof CsvError)) throw thrown;
    if (thrown.code === 'CSV_QUOTE_NOT_CLOSED') {
      return { fault: 'a quote is opened and not closed on this line' };
    }
    return { fault: 'a quote within a value: put the value in quotes, and the quote twice' };
  }
}

function withoutBom(text: string): string {
  return text.startsWith('\ufeff') ? text.slice(1) : text;
}

function readHeader(record: readonly string[]): ImportColumn[] {
  const names = record.map((name) => name.trim().toLowerCase());
  const columns = names.filter(isImportColumn);
  const wrong = names.filter((name) => !isImportColumn(name));
  if (wrong.length > 0) {
    throw new CoreError(
      'INVALID_ARGUMENT',
      `The header has unknown columns: ${wrong.join(', ')}; known are ${importColumns.join(', ')}, link_ID`,
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
  for await (const { line, text } of splitLines(createReadStream(file), lineBytesMax)) {
    if (text === undefined) yield { line, ...tooLong };
    else if (text.trim() !== '') yield toLine(line, () => readObject(text));
  }
}

/** Accepts numbers and text. Anything else is a fault. */
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

/**
 * Splits a stream of bytes into lines of UTF-8 text, numbered from 1. A line over the bound comes
 * without its text, and is never held in memory as a whole.
 */
export async function* splitLines(
  input: AsyncIterable<Buffer>,
  bytesMax: number,
): AsyncGenerator<{ line: number; text: string | undefined }> {
  let line = 1;
  let held: Buffer[] = [];
  let heldBytes = 0;
  const take = (last: Buffer): { line: number; text: string | undefined } => {
    const isTooLong = heldBytes + last.length > bytesMax;
    const text = isTooLong ? undefined : Buffer.concat([...held, last]).toString('utf8');
    held = [];
    heldBytes = 0;
    return { line: line++, text };
  };
  for await (const chunk of input) {
    let start = 0;
    for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, start)) {
      yield take(chunk.subarray(start, end));
      start = end + 1;
    }
    const rest = chunk.subarray(start);
    heldBytes += rest.length;
    if (heldBytes <= bytesMax) held.push(rest);
    else held = [];
  }
  if (heldBytes > 0) yield take(Buffer.alloc(0));
}
