import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { CsvError, parse } from 'csv-parse/sync';
import { CoreError } from '../../errors.ts';
import type { ImportLine } from '../../subscriptions/imported.ts';
import { type ImportColumn, importColumns, isImportColumn, toSubscription } from './row.ts';

export const importFormats = ['csv', 'ndjson'] as const;
export type ImportFormat = (typeof importFormats)[number];

const newline = 0x0a;
/** Bounds a line, so that a file without line ends cannot fill the memory. */
const lineBytesMax = 65_536;
const tooLong = `over ${lineBytesMax} bytes`;
const noUtf8 = 'no valid UTF-8: save the file as UTF-8 and import it again';
/** What spreadsheets put between values, the usual one first. */
const delimiters = [',', ';', '\t', '|'] as const;
type Delimiter = (typeof delimiters)[number];

/** How a file is to be read, apart from what it says itself. */
export interface ReadOptions {
  /** Time zone of times that name none; undefined: such a time is a fault. */
  zone?: string | undefined;
}

/**
 * Reads the lines of an import file, a few at a time. A line that is wrong has a fault of its own.
 * @throws CoreError INVALID_ARGUMENT if the file cannot be read, or its CSV header has unknown columns.
 */
export async function* readImport(
  file: string,
  format: ImportFormat,
  options: ReadOptions = {},
): AsyncGenerator<ImportLine> {
  try {
    yield* format === 'csv' ? readCsv(file, options) : readNdjson(file, options);
  } catch (thrown) {
    if (thrown instanceof CoreError) throw thrown;
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === undefined) throw thrown;
    const message = `${file} cannot be read: ${(thrown as Error).message}`;
    throw new CoreError('INVALID_ARGUMENT', message, { cause: thrown });
  }
}

async function* readCsv(file: string, options: ReadOptions): AsyncGenerator<ImportLine> {
  let header: ImportColumn[] | undefined;
  let delimiter: Delimiter | undefined;
  for await (const { line, text, fault } of linesOf(file)) {
    if (text !== undefined) delimiter ??= delimiterOf(text);
    const record = text === undefined ? { fault: fault ?? tooLong } : readRecord(text, delimiter);
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
      const values = () => Object.fromEntries(columns.map((name, at) => [name, record[at]]));
      yield toLine(line, values, options);
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
function readRecord(
  text: string,
  delimiter: Delimiter = ',',
): string[] | { fault: string } | undefined {
  const line = text.endsWith('\r') ? text.slice(0, -1) : text;
  if (line === '') return undefined;
  // Most lines have no quotes, and need no parser.
  if (!line.includes('"')) return line.split(delimiter);
  try {
    const [record] = parse(line, { delimiter, record_delimiter: '\n' }) as string[][];
    return record;
  } catch (thrown) {
    if (!(thrown instanceof CsvError)) throw thrown;
    if (thrown.code === 'CSV_QUOTE_NOT_CLOSED') {
      return { fault: 'a quote is opened and not closed on this line' };
    }
    return { fault: 'a quote within a value: put the value in quotes, and the quote twice' };
  }
}

/** What separates the names of a header. No name of a column holds one of these characters. */
function delimiterOf(header: string): Delimiter {
  const counts = delimiters.map((delimiter) => header.split(delimiter).length);
  return delimiters[counts.indexOf(Math.max(...counts))] ?? ',';
}

/** The lines of a file in UTF-8 or, with a byte order mark, UTF-16. The mark is left out. */
async function* linesOf(file: string): AsyncGenerator<Line> {
  const encoding = await markedEncoding(file);
  const input = createReadStream(file) as AsyncIterable<Buffer>;
  const bytes = encoding === undefined ? input : inUtf8(input, encoding);
  for await (const one of splitLines(bytes, lineBytesMax)) {
    if (one.line === 1 && one.text?.startsWith('\ufeff')) yield { ...one, text: one.text.slice(1) };
    else yield one;
  }
}

async function markedEncoding(file: string): Promise<'utf-16le' | 'utf-16be' | undefined> {
  const handle = await open(file, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(2), 0, 2, 0);
    const mark = buffer.toString('hex', 0, bytesRead);
    if (mark === 'fffe') return 'utf-16le';
    return mark === 'feff' ? 'utf-16be' : undefined;
  } finally {
    await handle.close();
  }
}

/** Halves of surrogate pairs become what no UTF-8 has, so that their line is a fault. */
async function* inUtf8(
  input: AsyncIterable<Buffer>,
  encoding: 'utf-16le' | 'utf-16be',
): AsyncGenerator<Buffer> {
  const decoder = new TextDecoder(encoding, { fatal: true });
  try {
    for await (const chunk of input) yield Buffer.from(decoder.decode(chunk, { stream: true }));
    yield Buffer.from(decoder.decode());
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new CoreError('INVALID_ARGUMENT', 'The file is no valid UTF-16: save it as UTF-8', {
      cause,
    });
  }
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

async function* readNdjson(file: string, options: ReadOptions): AsyncGenerator<ImportLine> {
  for await (const { line, text, fault } of linesOf(file)) {
    if (text === undefined) yield { line, fault: fault ?? tooLong };
    else if (text.trim() !== '') yield toLine(line, () => readObject(text), options);
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
    if (!isImportColumn(name)) {
      throw new Error(
        `${name}: unknown field: leave it out (known are ${importColumns.join(', ')}, link_ID)`,
      );
    }
    if (field === null) continue;
    if (typeof field !== 'string' && typeof field !== 'number') {
      throw new Error(`${name}: neither text nor a number`);
    }
    values[name] = typeof field === 'string' ? field : numberText(name, field);
  }
  return values;
}

/** Digits, since text like 1e+21 is no number of bytes and no time. */
function numberText(name: string, value: number): string {
  if (Math.abs(value) <= Number.MAX_SAFE_INTEGER) return String(value);
  throw new Error(`${name}: a number past 2^53, which JSON readers round: write it as text`);
}

function toLine(
  line: number,
  values: () => Record<string, string | undefined>,
  { zone }: ReadOptions,
): ImportLine {
  try {
    return { line, ...toSubscription(values() as Parameters<typeof toSubscription>[0], zone) };
  } catch (thrown) {
    return { line, fault: (thrown as Error).message };
  }
}

interface Line {
  line: number;
  text: string | undefined;
  /** Why there is no text. */
  fault?: string;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Splits a stream of bytes into lines of UTF-8 text, numbered from 1. A line over the bound, or one that is
 * no UTF-8, comes without its text. The first is never held in memory as a whole, and it comes before its
 * end is read: it may have none.
 */
export async function* splitLines(
  input: AsyncIterable<Buffer>,
  bytesMax: number,
): AsyncGenerator<Line> {
  let line = 1;
  let held: Buffer[] = [];
  let heldBytes = 0;
  const tooLongLine = (): Line => {
    held = [];
    return { line: line++, text: undefined };
  };
  const take = (last: Buffer): Line => {
    const bytes = Buffer.concat([...held, last]);
    held = [];
    return { line: line++, ...textOf(bytes) };
  };
  for await (const chunk of input) {
    let start = 0;
    for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, start)) {
      const last = chunk.subarray(start, end);
      // A line that was over the bound before this chunk has come already.
      if (heldBytes <= bytesMax) {
        yield heldBytes + last.length > bytesMax ? tooLongLine() : take(last);
      }
      heldBytes = 0;
      start = end + 1;
    }
    const rest = chunk.subarray(start);
    const isHeld = heldBytes <= bytesMax;
    heldBytes += rest.length;
    if (heldBytes <= bytesMax) held.push(rest);
    else if (isHeld) yield tooLongLine();
  }
  if (heldBytes > 0 && heldBytes <= bytesMax) yield take(Buffer.alloc(0));
}

function textOf(bytes: Buffer): { text: string } | { text: undefined; fault: string } {
  try {
    return { text: utf8.decode(bytes) };
  } catch {
    return { text: undefined, fault: noUtf8 };
  }
}
