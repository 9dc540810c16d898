import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Command } from 'commander';
import { writeDurable } from '../durable-file.ts';
import { CoreError, messageOf } from '../errors.ts';
import { type AppliedFleet, type ApplyOptions, applyFleet, type Plan } from '../fleet/apply.ts';
import { exportFleet } from '../fleet/export.ts';
import { type FleetFile, parseFleetFile } from '../fleet/file.ts';
import type { PlanLine } from '../fleet/plan-lines.ts';
import { jsonText, printable } from '../text.ts';
import { confirm, counted, countedLinks, yesOption } from './confirm.ts';
import type { CliContext, Run } from './context.ts';
import { rawCheck } from './raw-check.ts';
import { cellText, fieldsText, objectsText } from './table.ts';

const fileBytesMax = 67_108_864;
/** Exit code of `core apply --dry-run --exit-code` if there is something to change. */
const changesExitCode = 2;

/** `core apply` and `core export` */
export function addFleetCommands(program: Command, run: Run): void {
  program
    .command('apply')
    .description('Make nodes, protocols, outbounds, rules and settings of Xray match a file')
    .argument('<file>', 'YAML, as core export writes it')
    .option('--dry-run', 'print the plan and change nothing')
    .option('--exit-code', `with --dry-run: exit with ${changesExitCode} if there are changes`)
    .option('--prune', 'also remove the nodes that the file does not name')
    .option(...yesOption)
    .addHelpText(
      'after',
      `
Core matches nodes by name, protocols by name (without one by port and kind), outbounds by tag. So a
protocol that moves to another port keeps its links. Rules name an inbound by the name of its protocol.
A list that the file leaves out (protocols, outbounds, rules) stays as it is, and so does xray, which is
what core xray set takes. A list that it has is complete. Groups at the top of the file are made if they do
not exist; core apply removes none. The command prints the plan, says how many links it would end, and carries it out, all or
nothing. It asks before nodes or links end.

Examples:
  core apply fleet.yaml --dry-run
  core apply fleet.yaml`,
    )
    .action(
      run(async (context, options: ApplyArguments, file: string) => {
        const parsed = parseFleetFile(file, readFleetText(file));
        const dryRun = options.dryRun === true;
        const applied = await applyAsked(context, parsed, options);
        await printApplied(context, applied, dryRun);
        if (!dryRun || options.exitCode !== true || applied.lines.length === 0) return undefined;
        return { exitCode: changesExitCode };
      }),
    );

  program
    .command('export')
    .description('Write the fleet as a file that core apply takes')
    .argument('[file]', 'where to write it (default: stdout)')
    .option('--secrets', 'with keys and passwords, as an empty Core needs them')
    .addHelpText(
      'after',
      `
Without --secrets the export has <kept> for everything that is not known to be harmless, and core apply
then keeps what is stored. The file is a new one that only its owner can read.

Example:
  core export fleet.yaml`,
    )
    .action(
      run(async (context, options: { secrets?: boolean }, file: string | undefined) => {
        const { text, nodes } = await exportFleet(await context.postgres(), {
          secrets: options.secrets === true,
        });
        if (file !== undefined) {
          writeFleetText(file, text);
          context.print({ file, nodes });
        } else if (context.json) context.print({ nodes, text });
        else await context.write(text);
      }),
    );
}

interface ApplyArguments {
  dryRun?: boolean;
  exitCode?: boolean;
  prune?: boolean;
  yes?: boolean;
}

/**
 * Applies the file, and asks without holding the fleet's locks. If nodes or links would end, the first
 * round stops at its plan. The second round carries the plan out if it is still the same.
 */
async function applyAsked(
  context: CliContext,
  parsed: FleetFile,
  { dryRun = false, prune = false, yes = false }: ApplyArguments,
): Promise<AppliedFleet> {
  const pool = await context.postgres();
  const { registrationSeconds } = context.config.nodes;
  const apply = (onPlan: NonNullable<ApplyOptions['onPlan']>): Promise<AppliedFleet> =>
    applyFleet(pool, parsed, {
      dryRun,
      prune,
      registrationSeconds,
      onPlan,
      beforeCommit: rawCheck(context),
    });
  let asked: Plan | undefined;
  const applied = await apply(async (plan) => {
    if (!context.json) await context.write(planText(plan.lines));
    const { nodes, links } = plan.removed;
    if (dryRun || yes || nodes + links === 0) return 'carry out';
    asked = plan;
    return 'stop';
  });
  if (asked === undefined) return applied;
  const { nodes, protocols } = asked.removed;
  const ends = `${counted(nodes, 'node')}, ${counted(protocols, 'protocol')} and ${countedLinks(asked.removed)}`;
  await confirm(context, { what: 'This plan', effects: [`ends ${ends}`], answer: 'yes', yes });
  const again = await apply(async (plan) =>
    isDeepStrictEqual(plan, asked) ? 'carry out' : 'stop',
  );
  if (again.isCarriedOut) return again;
  throw new CoreError(
    'CONFIRMATION_NEEDED',
    'The fleet has changed meanwhile: nothing was changed',
  );
}

function readFleetText(file: string): string {
  try {
    if (statSync(file).size <= fileBytesMax) return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new CoreError('INVALID_ARGUMENT', `${file} cannot be read: ${messageOf(cause)}`, {
      cause,
    });
  }
  throw new CoreError('INVALID_ARGUMENT', `${file} has over ${fileBytesMax} bytes`);
}

/** Writes a new file that only its owner can read, because it may hold keys. */
function writeFleetText(file: string, text: string): void {
  try {
    requireRegular(file);
    writeDurable(file, text);
  } catch (cause) {
    throw new CoreError('INVALID_ARGUMENT', `${file} cannot be written: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/** Refuses devices and pipes, because the new file would replace them. */
function requireRegular(file: string): void {
  const isRegular = statSync(file, { throwIfNoEntry: false })?.isFile() ?? true;
  if (isRegular && !/^\/(dev|proc|sys)\//.test(path.resolve(file))) return;
  throw new Error('it is not a regular file; leave it out to write to standard output');
}

const signs = { create: '+', change: '~', remove: '-' } as const;

function planText(lines: readonly PlanLine[]): string {
  if (lines.length === 0) return 'Nothing to change.\n';
  return lines
    .map(({ action, object, changes, note, links }) => {
      const fields = changes.map(({ field, from, to }) => {
        const [before, after] = [valueText(from), valueText(to)];
        const values =
          before === undefined ? (after ?? '-') : `${before} -> ${after ?? '(nothing)'}`;
        return `    ${printable(field)}: ${values}\n`;
      });
      const ends = links === undefined ? '' : `    ends ${countedLinks(links)}\n`;
      const said = note === undefined ? '' : `    ${note}\n`;
      return `${signs[action]} ${action} ${printable(object)}\n${fields.join('')}${ends}${said}`;
    })
    .join('');
}

function valueText(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  return typeof value === 'string' ? jsonText(value) : cellText(value);
}

async function printApplied(
  context: CliContext,
  { lines, removed, created }: AppliedFleet,
  dryRun: boolean,
): Promise<void> {
  const count = (action: PlanLine['action']): number =>
    lines.filter((line) => line.action === action).length;
  const counts = {
    create: count('create'),
    change: count('change'),
    remove: count('remove'),
  };
  if (context.json) {
    const { links, linksInUse } = removed;
    const plan = lines.map(({ ends: _ids, moves: _groups, ...line }) => line);
    const value = { dryRun, ...counts, links, linksInUse, plan, created };
    await context.write(`${JSON.stringify(value)}\n`);
    return;
  }
  if (lines.length === 0) return;
  const [done, ended] = dryRun ? ['would be done', 'would end'] : ['done', 'ended'];
  const summary = fieldsText({ [done]: countsText(counts), [ended]: countedLinks(removed) });
  const codes =
    created.length === 0
      ? ''
      : `\n${objectsText(created, ['nodeId', 'name', 'code', 'expiresAt'], '')}`;
  await context.write(`\n${summary}${codes}`);
}

function countsText(counts: Record<string, number>): string {
  return `${counts['create']} created, ${counts['change']} changed, ${counts['remove']} removed`;
}
