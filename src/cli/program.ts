import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Command, CommanderError } from 'commander';
import type { Config } from '../config.ts';
import { CoreError, errorBody } from '../errors.ts';
import { projectRoot } from '../root.ts';
import { escapedJson, printable, printableLines } from '../text.ts';
import { createCliContext } from './context.ts';
import { addEventCommands } from './event.ts';
import { oneLine } from './failure.ts';
import { addFleetCommands } from './fleet.ts';
import { addLinkCommands } from './link.ts';
import { addNodeCommands } from './node.ts';
import { addOutboundCommands } from './outbound.ts';
import { addProtocolCommands } from './protocol.ts';
import { addReconcileCommand } from './reconcile.ts';
import { addRoleCommands } from './roles.ts';
import { addRuleCommands } from './rule.ts';
import type { CommandBody, Run } from './run.ts';
import { addSegmentCommands } from './segments.ts';
import { addSqlCommand } from './sql.ts';
import { addStatusCommand } from './status.ts';
import { addStoresCommand } from './stores.ts';
import { addSubscriptionCommands } from './subscription.ts';
import { addUserCommands } from './user.ts';
import { addWebhookCommands } from './webhook.ts';

export interface CliOptions {
  /** Read only once a command runs, so that `--help` needs no valid settings. */
  readConfig: () => Config;
  /** Default: that of the process. */
  stdin?: NodeJS.ReadableStream;
  stdout: NodeJS.WritableStream;
  stderr: NodeJS.WritableStream;
}

export interface CliEnd {
  exitCode: number;
  /** True where something may be left that would keep the process alive. */
  atOnce: boolean;
}

/**
 * Runs one command line (without `node` and the script) and resolves with how the process is to
 * end. Failures are one line on stderr, or with `--json` one JSON value; stdout then holds nothing.
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

function endOfOptions(args: readonly string[]): number {
  const end = args.indexOf('--');
  return end === -1 ? args.length : end;
}

type AnyBody = CommandBody<object, unknown, unknown>;

/** Commander hands over the positional arguments, up to two, the options, the command. */
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
      // Only a command that is a group writes help here; faults are thrown and printed by runCli.
      writeErr: (text) => stderr.write(printableLines(text)),
      outputError: () => undefined,
    });
  addRoleCommands(program, run);
  addNodeCommands(program, run);
  addProtocolCommands(program, run);
  addOutboundCommands(program, run);
  addRuleCommands(program, run);
  addFleetCommands(program, run);
  addUserCommands(program, run);
  addSubscriptionCommands(program, run);
  addLinkCommands(program, run);
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

/** A group without a command, like `core node`, is a fault that names the commands it has. */
function refuseBareGroups(group: Command): void {
  if (group.commands.length === 0) return;
  const path = group.parent === null ? group.name() : `${group.parent.name()} ${group.name()}`;
  const names = group.commands.map((command) => command.name()).join(', ');
  group.usage('[options] <command>');
  // What follows a command that there is not is no fault of its own.
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
