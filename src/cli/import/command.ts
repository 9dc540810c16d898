import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { CoreError } from '../../errors.ts';
import { isTimeZone } from '../../panels/instant.ts';
import type { CliContext, Run } from '../context.ts';
import { type ImportFormat, importFormats, readImport } from './read.ts';
import { importBytesMax, requireRegularFile } from './regular-file.ts';
import { type RunOptions, runImport } from './run-import.ts';

export interface FileOptions extends RunOptions {
  format?: ImportFormat;
  timezone?: string;
}

/** A time zone by its name in the IANA database. */
export function timeZone(given: string): string {
  if (isTimeZone(given)) return given;
  throw new InvalidArgumentError('It must be a time zone like UTC or Asia/Tehran.');
}

/** The columns that a CSV or NDJSON file may have, for the help. */
export const columnsHelp = `
A CSV file has a header. Columns, or fields of a JSON line:
  user      name; Core adds a user who does not exist
  user_id   in place of user
  limit     traffic of a period, like 10GB; empty or 0: none
  used      what the period has used already; empty: nothing
  expires   like 2030-01-31T00:00:00Z, or seconds or milliseconds since 1970; empty or 0: never
  duration  time from the first traffic, like 30d; empty: none
  reset     none, day, week or month; empty: none
  anchor    start of the first period; empty: now
  status    active, disabled, limited, expired or on_hold; empty: active
  groups    like default;premium; empty: default
  credential   what client apps hold already: a UUID or any text; empty: new ones
  link_ID   the same for the link to protocol ID only
  external_id  what you call it; an import that is repeated leaves it out
Every line is checked before anything is written. See docs/import.md.
`;

/** `core subscription import` */
export function addImportCommand(subscription: Command, run: Run): void {
  const command = subscription
    .command('import')
    .description('Add many subscriptions from a CSV or NDJSON file, all or none');
  addFileOptions(command)
    .addHelpText(
      'after',
      `${columnsHelp}
Examples:
  core subscription import customers.csv --dry-run
  core subscription import - --format ndjson --keep-going < customers.ndjson`,
    )
    .action(
      run((context, options: FileOptions, file: string) =>
        importFile(context, options, file, false),
      ),
    );
}

/** The argument and the options of a command that takes a CSV or NDJSON file. */
export function addFileOptions(command: Command): Command {
  return command
    .argument('<file>', 'a .csv or .ndjson file, or - for standard input')
    .addOption(
      new Option('--format <format>', 'needed if the file name does not say it').choices(
        importFormats,
      ),
    )
    .option('--timezone <zone>', 'of times that name none, like Asia/Tehran', timeZone)
    .option('--keep-going', 'leave bad lines out and take the good ones')
    .option('--dry-run', 'only say what would be imported');
}

export async function importFile(
  context: CliContext,
  options: FileOptions,
  file: string,
  asks: boolean,
): Promise<{ exitCode: number } | undefined> {
  const format = options.format ?? formatOf(file);
  if (file !== '-') await requireRegularFile(file, true);
  // The import reads its file twice, and a pipe can be read only once.
  const copied = file === '-' ? await copyInput(context.stdin) : undefined;
  try {
    const open = () => readImport(copied?.file ?? file, format, { zone: options.timezone });
    return await runImport(context, { ...options, open, noun: 'line', asks });
  } finally {
    await copied?.remove();
  }
}

function formatOf(file: string): ImportFormat {
  const format = importFormats.find((known) => file.toLowerCase().endsWith(`.${known}`));
  if (format !== undefined) return format;
  throw new CoreError(
    'INVALID_ARGUMENT',
    'Give --format: the file name ends in neither .csv nor .ndjson',
  );
}

async function copyInput(
  stdin: NodeJS.ReadableStream,
): Promise<{ file: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'core-import-'));
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  try {
    const file = path.join(folder, 'input');
    await pipeline(stdin, bounded, createWriteStream(file, { mode: 0o600 }));
    return { file, remove };
  } catch (thrown) {
    await remove();
    throw thrown;
  }
}

/** Standard input may have no end, and a disk has one. */
async function* bounded(input: AsyncIterable<Buffer | string>): AsyncGenerator<Buffer | string> {
  let bytes = 0;
  for await (const chunk of input) {
    bytes += Buffer.byteLength(chunk);
    if (bytes > importBytesMax) {
      throw new CoreError('INVALID_ARGUMENT', `Standard input has over ${importBytesMax} bytes`);
    }
    yield chunk;
  }
}
