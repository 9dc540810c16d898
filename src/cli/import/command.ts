import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { SingleBar } from 'cli-progress';
import { type Command, Option } from 'commander';
import { CoreError } from '../../errors.ts';
import {
  type ImportProgress,
  type ImportReport,
  importSubscriptions,
} from '../../subscriptions/import.ts';
import { printable } from '../../text.ts';
import type { CliContext, Run } from '../context.ts';
import { fieldsText } from '../table.ts';
import { type ImportFormat, importFormats, readImport } from './read.ts';

interface ImportOptions {
  format?: ImportFormat;
  keepGoing?: boolean;
}

/** `core subscription import` */
export function addImportCommand(subscription: Command, run: Run): void {
  subscription
    .command('import')
    .description('Add many subscriptions from a CSV or NDJSON file, all or none')
    .argument('<file>', 'a .csv or .ndjson file, or - for standard input')
    .addOption(
      new Option('--format <format>', 'needed if the file name does not say it').choices(
        importFormats,
      ),
    )
    .option('--keep-going', 'leave bad lines out and take the good ones')
    .addHelpText(
      'after',
      `
A CSV file has a header. Columns, or fields of a JSON line:
  user      name; Core adds a user who does not exist
  user_id   in place of user
  limit     traffic of a period, like 10GB; empty: none
  expires   like 2030-01-31T00:00:00Z; empty: never
  reset     none, day, week or month; empty: none
  anchor    start of the first period; empty: now
  status    active or disabled; empty: active
  groups    like default;premium; empty: default
  credential   what client apps hold already: a UUID or any text; empty: new ones
  link_ID   the same for the link to protocol ID only
Every line is checked before anything is written. See docs/import.md.

Examples:
  core subscription import customers.csv
  core subscription import - --format ndjson --keep-going < customers.ndjson`,
    )
    .action(run(importFile));
}

async function importFile(
  context: CliContext,
  options: ImportOptions,
  file: string,
): Promise<{ exitCode: number } | undefined> {
  const format = options.format ?? formatOf(file);
  const pool = await context.postgres();
  const progress = createProgress(context);
  // The import reads its file twice, and a pipe can be read only once.
  const copied = file === '-' ? await copyInput(context.stdin) : undefined;
  try {
    const report = await importSubscriptions(pool, () => readImport(copied?.file ?? file, format), {
      keepGoing: options.keepGoing === true,
      onProgress: progress.update,
    });
    progress.stop();
    await context.write(context.json ? `${JSON.stringify(report)}\n` : reportText(report));
    return report.imported ? undefined : { exitCode: 1 };
  } finally {
    progress.stop();
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
    await pipeline(stdin, createWriteStream(file, { mode: 0o600 }));
    return { file, remove };
  } catch (thrown) {
    await remove();
    throw thrown;
  }
}

/** A progress bar at a terminal; none for a file or with `--json`. */
function createProgress(context: CliContext): {
  update: ((progress: ImportProgress) => void) | undefined;
  stop: () => void;
} {
  const { stderr } = context;
  if (context.json || (stderr as { isTTY?: boolean }).isTTY !== true) {
    return { update: undefined, stop: () => undefined };
  }
  const bar = new SingleBar({
    stream: stderr,
    format: '{phase} [{bar}] {value}/{total} lines, {duration_formatted}',
    clearOnComplete: true,
    hideCursor: true,
  });
  let phase: string | undefined;
  return {
    update(progress) {
      const total = progress.linesTotal ?? progress.lines;
      if (phase === undefined) bar.start(total, 0, { phase: progress.phase });
      phase = progress.phase;
      bar.setTotal(total);
      bar.update(progress.lines, { phase });
    },
    stop() {
      if (phase !== undefined) bar.stop();
      phase = undefined;
    },
  };
}

function reportText(report: ImportReport): string {
  const lines = report.bad.map(({ line, fault }) => `line ${line}: ${printable(fault)}\n`);
  if (report.badLines > report.bad.length) {
    lines.push(`and ${report.badLines - report.bad.length} more\n`);
  }
  const { imported, subscriptions, users, links, badLines } = report;
  const summary = { subscriptions, users, links, 'bad lines': badLines };
  return lines.join('') + fieldsText(imported ? summary : { imported: 'nothing', ...summary });
}
