import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { InvalidArgumentError } from 'commander';
import type { Config } from '../config.ts';
import { writeDurable } from '../durable-file.ts';
import { CoreError, messageOf } from '../errors.ts';
import { isToken } from '../pages/token.ts';
import {
  createMissingPages,
  createPage,
  removePage,
  rotatePage,
  showPage,
} from '../pages/tokens.ts';
import { id } from './arguments.ts';
import { confirm, yesOption } from './confirm.ts';
import type { CliContext, Run } from './context.ts';
import { readSecret, type Secret, secret } from './secret.ts';
import { fieldsText } from './table.ts';

interface CreateOptions {
  token?: Secret<string>;
  all?: boolean;
  file?: string;
}

/** `core subscription page …` */
export function addSubscriptionPageCommands(subscription: Command, run: Run): void {
  const page = subscription
    .command('page')
    .description('The address where client apps fetch the links of a subscription');
  page
    .command('create')
    .description('Give a subscription a page, or all that have none; prints the address once')
    .argument('[id]', 'id of the subscription', id)
    .option(
      '--token <token>',
      'a token of another panel that client apps have, or @file, or -',
      secret(token),
    )
    .option('--all', 'every subscription that has no page')
    .option('--file <file>', 'with --all: a new CSV file for the addresses')
    .addHelpText(
      'after',
      `
The address is a secret: who has it has the links. Core keeps only its hash and cannot print it again.
Core serves pages if CORE_SUBSCRIPTION_PAGES is true. See docs/subscription-pages.md.

Examples:
  core subscription page create 1
  core subscription page create --all --file pages.csv`,
    )
    .action(
      run(async (context, options: CreateOptions, subscriptionId: number | undefined) => {
        if (options.all === true) return createAll(context, options, subscriptionId);
        if (subscriptionId === undefined || options.file !== undefined) {
          const message = 'Give the id of a subscription, or --all with --file';
          throw new CoreError('INVALID_ARGUMENT', message);
        }
        const given = await readSecret(context, options.token, tokenOption);
        const made = await createPage(await context.postgres(), subscriptionId, given);
        return printAddress(context, subscriptionId, made);
      }),
    );

  page
    .command('show')
    .description('Since when a subscription has the address of its page')
    .argument('<id>', 'id of the subscription', id)
    .addHelpText('after', '\nExample:\n  core subscription page show 1')
    .action(
      run(async (context, _options, subscriptionId: number) => {
        context.print(await showPage(await context.postgres(), subscriptionId));
      }),
    );
  addEndingCommands(page, run);
}

/** The commands that end an address which client apps have. */
function addEndingCommands(page: Command, run: Run): void {
  page
    .command('rotate')
    .description('Give a page a new address; the old one stops working within 5 seconds')
    .argument('<id>', 'id of the subscription', id)
    .option(...yesOption)
    .addHelpText(
      'after',
      `
The links stay as they are: core subscription rotate ends those.

Example:
  core subscription page rotate 1`,
    )
    .action(
      run(async (context, options: { yes?: boolean }, subscriptionId: number) => {
        await confirmEnd(context, 'Rotating', subscriptionId, options);
        const made = await rotatePage(await context.postgres(), subscriptionId);
        printAddress(context, subscriptionId, made);
      }),
    );

  page
    .command('remove')
    .description('Take the page of a subscription away; its links stay')
    .argument('<id>', 'id of the subscription', id)
    .option(...yesOption)
    .addHelpText('after', '\nExample:\n  core subscription page remove 1')
    .action(
      run(async (context, options: { yes?: boolean }, subscriptionId: number) => {
        await confirmEnd(context, 'Removing', subscriptionId, options);
        await removePage(await context.postgres(), subscriptionId);
        context.print({ subscriptionId, removed: true });
      }),
    );
}

function token(given: string): string {
  if (isToken(given)) return given;
  throw new InvalidArgumentError('It must be 16 to 64 letters, digits, - or _, and hard to guess.');
}

const tokenOption = { option: '--token', parse: token };

function addressOf({ pages }: Config, given: string): string {
  return `${pages.url}/sub/${given}`;
}

/** The address of a page, and what the operator should know of it. */
export function pageOf({ config }: CliContext, made: string): { url: string; hint: string } {
  const hint = config.pages.areServed
    ? ''
    : 'Core serves it once CORE_SUBSCRIPTION_PAGES is true.\n';
  return { url: addressOf(config, made), hint };
}

function printAddress(context: CliContext, subscriptionId: number, made: string): void {
  const { url, hint } = pageOf(context, made);
  const page = { subscriptionId, url };
  context.print(page, `${fieldsText(page)}${hint}`);
}

/** The file is on disk before Postgres commits, because nobody gets a token from Core afterwards. */
async function createAll(
  context: CliContext,
  { file, token: given }: CreateOptions,
  subscriptionId: number | undefined,
): Promise<void> {
  if (file === undefined || subscriptionId !== undefined || given !== undefined) {
    throw new CoreError(
      'INVALID_ARGUMENT',
      'Give --all with --file, and neither an id nor --token',
    );
  }
  if (existsSync(file)) {
    throw new CoreError('INVALID_ARGUMENT', `${file} exists already: name a new file`);
  }
  const pages = await createMissingPages(await context.postgres(), (made) => {
    const lines = made.map(
      (one) => `${one.subscriptionId},${one.userId},${addressOf(context.config, one.token)}\n`,
    );
    try {
      writeDurable(file, `subscription_id,user_id,url\n${lines.join('')}`);
    } catch (cause) {
      const message = `${file} cannot be written, so no page was made: ${messageOf(cause)}`;
      throw new CoreError('INVALID_ARGUMENT', message, { cause });
    }
  });
  context.print({ pages, file });
}

async function confirmEnd(
  context: CliContext,
  doing: string,
  subscriptionId: number,
  { yes }: { yes?: boolean },
): Promise<void> {
  const { tokenSince } = await showPage(await context.postgres(), subscriptionId);
  await confirm(context, {
    what: `${doing} the page of subscription ${subscriptionId}`,
    effects: [`ends the address that client apps have since ${tokenSince.toISOString()}`],
    answer: 'yes',
    yes,
  });
}
