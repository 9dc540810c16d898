import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Command, CommanderError } from 'commander';
import type { Config } from '../config.ts';
import { CoreError, errorBody } from '../errors.ts';
import { projectRoot } from '../root.ts';
import { classifyFailure } from '../stores/failures.ts';
import { escapedJson, printable, printableLines } from '../text.ts';
import { type CommandBody, createCliContext, type Run } from './context.ts';
import { addEventCommands } from './event.ts';
import { addFleetCommands } from './fleet.ts';
import { addGroupCommands } from './group.ts';
import { addPanelCommands } from './import/panel-command.ts';
import { addLinkCommands } from './link.ts';
import { addNodeCommands } from './node.ts';
import { addOutboundCommands } from './outbound.ts';
import { addProtocolCommands } from './protocol.ts';
import { addReconcileCommand } from './reconcile.ts';
import { addRoleCommands } from './roles.ts';
import { addRuleCommands } from './rule.ts';
import { addSegmentCommands } from './segments.ts';
import { addSqlCommand } from './sql.ts';
import { addStatusCommand } from './status.ts';
import { addStoresCommand } from './stores.ts';
import { addSubscriptionCommands } from './subscription.ts';
import { addUserCommands } from './user.ts';
import { addWebhookCommands } from './webhook.ts';
import { addXrayCommands } from './xray.ts';

/** SQLSTATE of a missing table. */
const undefinedTable = '42P01';

interface CliOptions {
  /** Called when a command runs, so that `--help` needs no valid settings. */
  readConfig: () => Config;
  /** Default: stdin of the process. */
  stdin?: NodeJS.ReadableStream;
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream;
}

interface CliEnd {
  exitCode: number;
  /** The process must exit at once, because something may be left that keeps it alive. */
  atOnce: boolean;
}

/**
 * Runs one command line (without `node` and the script) and resolves with how the process should end.
 * A failure is one line on stderr, or one JSON value with `--json`. Stdout stays empty then.
 */
export async function runCli(args: readonly string[], options: CliOptions): Promise<CliEnd> {
  let end: CliEnd = { exitCode: 0, atOnce: false };
  const run: Run =
    (body) =>
    async (...given) => {
      const exitCode = await runCommand(body as AnyBody, given, options);
      if (exitCode !== undefined) end = { exitCode, atOnce: true };
    };
  try {
    await createProgram(run, options).parseAsync(args, { from: 'user' });
    return end;
  } catch (thrown) {
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return end;
    const error = oneLine(thrown);
    const json = args.slice(0, endOfOptions(args)).includes('--json');
    const line = json ? escapedJson(errorBody(error)) : `core: ${printable(error.message)}`;
    options.stderr.write(`${line}\n`);
    return { exitCode: 1, atOnce: false };
  }
}

/** Turns whatever a command threw into a CoreError with a message of one line for the operator. */
function oneLine(thrown: unknown): CoreError {
  if (thrown instanceof CommanderError) {
    const message = thrown.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ');
    return new CoreError('INVALID_ARGUMENT', message, { cause: thrown });
  }
  if ((thrown as { code?: unknown } | null)?.code === undefinedTable) {
    return new CoreError(
      'MIGRATION_FAILED',
      'The database lacks the tables of Core; run core migrate',
      {
        cause: thrown,
      },
    );
  }
  const error = classifyFailure(thrown);
  if (error.code !== 'INTERNAL' && error.code !== 'STORE_UNAVAILABLE') return error;
  if (error === thrown || !(thrown instanceof Error)) return error;
  // Print the original message of unexpected errors. An operator may see it; a node must not.
  return new CoreError(error.code, `${error.message}: ${thrown.message}`, { cause: thrown });
}

function endOfOptions(args: readonly string[]): number {
  const end = args.indexOf('--');
  return end === -1 ? args.length : end;
}

type AnyBody = CommandBody<object, unknown, unknown>;

/** Commander passes the positional arguments (up to two), the options and the command, in this order. */
async function runCommand(
  body: AnyBody,
  given: readonly unknown[],
  { readConfig, stdin = process.stdin, stdout, stderr }: CliOptions,
): Promise<number | undefined> {
  const command = given.at(-1);
  if (!(command instanceof Command)) throw new Error('Commander passes the command last');
  const { json, ...options } = command.optsWithGlobals<{ json?: boolean }>();
  const context = createCliContext({
    config: readConfig(),
    json: json === true,
    stdin,
    stdout,
    stderr,
  });
  try {
    const [argument, second] = given.slice(0, -2);
    const result = await body(context, options, argument, second);
    return result?.exitCode;
  } finally {
    await context.close();
  }
}

function createProgram(run: Run, { stdout, stderr }: CliOptions): Command {
  const program = new Command('core')
    .description('The service a fleet of VPN nodes reports to.')
    .version(version(), '-V, --version', 'print the version')
    .option('--json', 'print one JSON value and nothing else')
    .helpOption('-h, --help', 'print this help')
    .helpCommand('help [command]', 'print the help of a command')
    .configureHelp({ showGlobalOptions: true, sortSubcommands: false })
    .addHelpText(
      'after',
      `
Settings are environment variables; see .env.example.

Examples:
  core up
  core node create --name berlin-1 --region eu
  core status --json`,
    )
    .exitOverride()
    .configureOutput({
      writeOut: (text) => stdout.write(printableLines(text)),
      // Only the help of a group comes here. Faults are thrown, and runCli prints them.
      writeErr: (text) => stderr.write(printableLines(text)),
      outputError: () => undefined,
    });
  addRoleCommands(program, run);
  addNodeCommands(program, run);
  addProtocolCommands(program, run);
  addOutboundCommands(program, run);
  addRuleCommands(program, run);
  addXrayCommands(program, run);
  addFleetCommands(program, run);
  addUserCommands(program, run);
  addSubscriptionCommands(program, run);
  addPanelCommands(program, run);
  addLinkCommands(program, run);
  addGroupCommands(program, run);
  addEventCommands(program, run);
  addWebhookCommands(program, run);
  addStatusCommand(program, run);
  addStoresCommand(program, run);
  addSegmentCommands(program, run);
  addReconcileCommand(program, run);
  addSqlCommand(program, run);
  refuseBareGroups(program);
  return program;
}

/** Makes a group without a command, like `core node`, a fault that names the group's commands. */
function refuseBareGroups(group: Command): void {
  if (group.commands.length === 0) return;
  const path = group.parent === null ? group.name() : `${group.parent.name()} ${group.name()}`;
  const names = group.commands.map((command) => command.name()).join(', ');
  group.usage('[options] <command>');
  // Arguments after an unknown command are no fault of their own.
  group.allowExcessArguments();
  group.argument('[command]').action((given: string | undefined) => {
    const fault = given === undefined ? 'needs a command' : `has no command ${given}`;
    throw new CoreError('INVALID_ARGUMENT', `${path} ${fault}: ${names} (see ${path} --help)`);
  });
  for (const command of group.commands) refuseBareGroups(command);
}

function version(): string {
  const file = readFileSync(path.join(projectRoot, 'package.json'), 'utf8');
  return (JSON.parse(file) as { version: string }).version;
}
