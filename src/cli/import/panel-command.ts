import { type Command, InvalidArgumentError } from 'commander';
import { CoreError } from '../../errors.ts';
import type { InboundTarget } from '../../panels/assign.ts';
import { readServed } from '../../panels/assign.ts';
import { importPanel, openPanel, type Panel, panels } from '../../panels/open.ts';
import { groupNames, id, name } from '../arguments.ts';
import { yesOption } from '../confirm.ts';
import type { CliContext, Run } from '../context.ts';
import { objectsText } from '../table.ts';
import { addFileOptions, columnsHelp, type FileOptions, importFile } from './command.ts';
import { requireRegularFile } from './regular-file.ts';
import { type RunOptions, runImport } from './run-import.ts';

interface PanelOptions extends RunOptions {
  map?: Map<string, number[]>;
  groups?: string[];
  group?: Map<string, string[]>;
  source?: string;
  yes?: boolean;
}

const files: Record<Panel, string> = {
  marzban: "db.sqlite3, or JSON of the panel's API (GET /api/users)",
  '3x-ui': "x-ui.db, or JSON of the panel's API (GET /panel/api/inbounds/list)",
  remnawave: "JSON of the panel's API (GET /api/users), or its table users as CSV",
};

const titles: Record<Panel, string> = {
  marzban: 'Marzban',
  '3x-ui': '3x-ui',
  remnawave: 'Remnawave',
};

/** `core import …` */
export function addPanelCommands(program: Command, run: Run): void {
  const group = program.command('import').description('Move in from another panel');
  for (const panel of panels) addPanelCommand(group, run, panel);
  const csv = group
    .command('csv')
    .description(
      'Subscriptions from a CSV or NDJSON file: a plan first, then core subscription import',
    );
  addFileOptions(csv)
    .option(...yesOption)
    .addHelpText('after', `${columnsHelp}\nExample:\n  core import csv customers.csv`)
    .action(
      run(async (context, options: FileOptions & { yes?: boolean }, file: string) => {
        refuseUnasked(context, options);
        return importFile(context, options, file, options.yes !== true);
      }),
    );
}

function addPanelCommand(group: Command, run: Run, panel: Panel): void {
  group
    .command(panel)
    .description(`Users of ${titles[panel]} with their links, limits and what they have used`)
    .argument('<file>', files[panel])
    .option('--map <inbound=ids>', 'protocols that take the place of an inbound', labelled(ids))
    .option('--groups <names>', 'groups of everybody (default: default)', groupNames)
    .option(
      '--group <name=groups>',
      'groups of those in an inbound, squad or group of the panel',
      labelled(groupNames),
    )
    .option('--source <name>', `what tells this panel from others (default: ${panel})`, name)
    .option('--keep-going', 'leave out users that cannot be taken')
    .option('--dry-run', 'only print the plan')
    .option(...yesOption)
    .addHelpText(
      'after',
      `
Add the protocols first, with the keys, domains and ports of the panel. An inbound of the panel becomes the
protocol of the same kind on the same port, or what --map says. The plan says which links cannot be kept, and
why. A repeated import adds only who is new. See docs/import.md.

Examples:
  core import ${panel} FILE --dry-run
  core import ${panel} FILE --map "My inbound=3,4" --yes`,
    )
    .action(
      run((context, options: PanelOptions, file: string) =>
        importOf(context, panel, options, file),
      ),
    );
}

async function importOf(
  context: CliContext,
  panel: Panel,
  options: PanelOptions,
  file: string,
): Promise<{ exitCode: number } | undefined> {
  refuseUnasked(context, options);
  const opened = await openFile(panel, file);
  try {
    const served = await readServed(await context.postgres());
    const { inbounds, lines } = importPanel(opened, options.source ?? panel, served, {
      maps: options.map ?? new Map(),
      groupsOfLabels: options.group ?? new Map(),
      groups: options.groups ?? ['default'],
    });
    const shown = inbounds.map(inboundFields);
    const head = {
      text: `${opened.warnings.map((line) => `warning: ${line}\n`).join('')}${inboundsText(shown)}`,
      json: { warnings: opened.warnings, inbounds: shown },
    };
    const asks = options.yes !== true;
    return await runImport(context, { ...options, open: lines, noun: 'user', head, asks });
  } finally {
    await opened.close();
  }
}

async function openFile(panel: Panel, file: string): ReturnType<typeof openPanel> {
  await requireRegularFile(file, false);
  try {
    return await openPanel(panel, file);
  } catch (cause) {
    if (cause instanceof CoreError || (cause as NodeJS.ErrnoException).code === undefined)
      throw cause;
    const message = `${file} cannot be read: ${(cause as Error).message}`;
    throw new CoreError('INVALID_ARGUMENT', message, { cause });
  }
}

/** A script gets no plan on stdout that it has not asked for. */
function refuseUnasked(context: CliContext, options: { yes?: boolean; dryRun?: boolean }): void {
  if (options.yes === true || options.dryRun === true || context.isAtTerminal) return;
  throw new CoreError(
    'CONFIRMATION_NEEDED',
    'Nothing was imported: give --dry-run to see the plan, and --yes to carry it out',
  );
}

function inboundFields({ inbound, protocols }: InboundTarget): Record<string, unknown> {
  const { label, protocol, port, enabled } = inbound;
  const nodeProtocolIds = protocols.map((served) => served.id);
  return { inbound: label, protocol, port, enabled, nodeProtocolIds };
}

function inboundsText(inbounds: readonly Record<string, unknown>[]): string {
  if (inbounds.length === 0) return '';
  const columns = ['inbound', 'protocol', 'port', 'enabled', 'nodeProtocolIds'];
  return `${objectsText(inbounds, columns, '')}\n`;
}

function ids(given: string): number[] {
  return given.split(',').map((text) => id(text.trim()));
}

/** `NAME=VALUE`, collected over all times that the option is given. */
function labelled<T>(
  parse: (given: string) => T[],
): (given: string, before?: Map<string, T[]>) => Map<string, T[]> {
  return (given, before = new Map()) => {
    // A name may hold `=` itself.
    const at = given.lastIndexOf('=');
    if (at < 1) throw new InvalidArgumentError('It must be like NAME=VALUE.');
    return new Map(before).set(given.slice(0, at), parse(given.slice(at + 1)));
  };
}
