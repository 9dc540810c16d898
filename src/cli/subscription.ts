import type { Command } from 'commander';
import { passwordMisreadings } from '../client-apps/misread-links.ts';
import { CoreError } from '../errors.ts';
import { subscriptionGroupEffects } from '../groups/membership.ts';
import { createSubscriptionWithPage } from '../pages/tokens.ts';
import { changeSubscription, type SubscriptionChange } from '../subscriptions/change.ts';
import { createSubscription } from '../subscriptions/create.ts';
import { deleteSubscription } from '../subscriptions/delete.ts';
import { listResets, resetSubscription } from '../subscriptions/due.ts';
import type { ResetPeriod } from '../subscriptions/period.ts';
import { rotateLinks } from '../subscriptions/rotate.ts';
import { listSubscriptions, showSubscription, subscriptionEffects } from '../subscriptions/show.ts';
import {
  afterId,
  bytes,
  bytesOrNone,
  credential,
  date,
  dateOrNever,
  duration,
  groupNames,
  id,
  resetPeriod,
  rowsMax,
} from './arguments.ts';
import { confirm, counted, yesOption } from './confirm.ts';
import type { CliContext, Run } from './context.ts';
import { addImportCommand } from './import/command.ts';
import { readSecret, type Secret, secret } from './secret.ts';
import { addSubscriptionPageCommands, pageOf } from './subscription-page.ts';
import { fieldsText, objectsText } from './table.ts';

/** `core subscription …` */
export function addSubscriptionCommands(program: Command, run: Run): void {
  const subscription = program
    .command('subscription')
    .description('Subscriptions: what a user may use and has used');

  addSubscriptionCreate(subscription, run);

  subscription
    .command('show')
    .description('One subscription with its counters')
    .argument('<id>', 'id of the subscription', id)
    .addHelpText('after', '\nExample:\n  core subscription show 1')
    .action(
      run(async (context, _options, subscriptionId: number) => {
        context.print(await showSubscription(await context.postgres(), subscriptionId));
      }),
    );

  subscription
    .command('list')
    .description('Subscriptions by id, a page at a time')
    .option('--user <id>', 'only those of this user', id)
    .option('--after <id>', 'start after this id', afterId, 0)
    .option('--max <rows>', 'at most this many', rowsMax, 1_000)
    .addHelpText('after', '\nExample:\n  core subscription list --user 1')
    .action(
      run(async (context, options: { user?: number; after: number; max: number }) => {
        const page = { userId: options.user, afterId: options.after, rowsMax: options.max };
        const found = await listSubscriptions(await context.postgres(), page);
        context.print(found, objectsText(found, listColumns, 'There are no subscriptions.'));
      }),
    );

  addSubscriptionChanges(subscription, run);
  addSubscriptionPageCommands(subscription, run);
  addImportCommand(subscription, run);
}

function addSubscriptionCreate(subscription: Command, run: Run): void {
  subscription
    .command('create')
    .description('Give a user access to the protocols of some groups')
    .requiredOption('--user <id>', 'id of the user', id)
    .option('--limit <bytes>', 'traffic, up and down together, like 10GB or 512MiB', bytes)
    .option('--expires <date>', 'when it ends, like 2030-01-31T00:00:00Z', date)
    .option('--duration <time>', 'how long it lasts from its first traffic, like 30d', duration)
    .option('--reset, --reset-period <period>', 'none, day, week or month', resetPeriod)
    .option('--anchor <date>', 'start of the first period, in UTC (default: now)', date)
    .option('--groups <names>', 'groups, like default,premium (default: default)', groupNames)
    .option(
      '--credential <text>',
      'what client apps hold, for all links, or @file, or - (default: new)',
      secret(credential),
    )
    .option('--page', 'make its page too, and print the address once')
    .addHelpText(
      'after',
      `
${secretHelp}

Examples:
  core subscription create --user 1 --limit 10GB --page
  core subscription create --user 1 --credential @credential.txt
  core subscription create --user 1 --duration 30d
  core subscription create --user 1 --limit 10GB --reset month --anchor 2030-01-31T00:00:00Z`,
    )
    .action(
      run(async (context, options: CreateOptions) => {
        refuseTwoEnds(options);
        const pool = await context.postgres();
        const credential = await readSecret(context, options.credential, credentialOption);
        const given = {
          userId: options.user,
          trafficLimitBytes: options.limit ?? null,
          expiresAt: options.expires ?? null,
          durationSeconds: options.duration,
          resetPeriod: options.resetPeriod,
          anchorAt: options.anchor,
          groups: options.groups,
          credential,
        };
        const { pageToken, ...created } =
          options.page === true
            ? await createSubscriptionWithPage(pool, given)
            : { pageToken: undefined, ...(await createSubscription(pool, given)) };
        const page = pageToken === undefined ? undefined : pageOf(context, pageToken);
        const { subscriptionId, links } = created;
        const table = objectsText(
          links,
          ['nodeProtocolId', 'uuid'],
          'No links yet: no protocol is in a group of it.',
        );
        const shown = { subscriptionId, ...(page === undefined ? {} : { url: page.url }) };
        const { fields, text } = warned(credential);
        context.print(
          { ...created, ...(page === undefined ? {} : { url: page.url }), ...fields },
          `${fieldsText(shown)}${page?.hint ?? ''}\n${table}${text}`,
        );
      }),
    );
}

const credentialOption = { option: '--credential', parse: credential };
const secretHelp =
  'A credential in @file or on stdin (-) stays out of the history of the shell. The end of its line is no part of it.';

/** Which apps misread a given credential in a link: a field for JSON, and lines of text. */
function warned(credential: string | null | undefined): {
  fields: { warnings?: string[] };
  text: string;
} {
  const warnings = typeof credential === 'string' ? passwordMisreadings(credential) : [];
  const text = warnings.map((warning) => `Warning: ${warning}\n`).join('');
  return { fields: warnings.length === 0 ? {} : { warnings }, text };
}

function refuseTwoEnds({
  expires,
  duration: lasts,
}: {
  expires?: unknown;
  duration?: number;
}): void {
  if (expires === undefined || lasts === undefined) return;
  const message =
    'Give --expires or --duration: with a duration, the first traffic sets the expiry';
  throw new CoreError('INVALID_ARGUMENT', message);
}

interface CreateOptions {
  user: number;
  limit?: number;
  expires?: Date;
  duration?: number;
  resetPeriod?: ResetPeriod;
  anchor?: Date;
  groups?: string[];
  credential?: Secret<string>;
  page?: boolean;
}

const listColumns = [
  'subscriptionId',
  'userId',
  'status',
  'trafficBytesUp',
  'trafficBytesDown',
  'usedBytes',
  'trafficLimitBytes',
  'expiresAt',
  'durationSeconds',
  'resetPeriod',
  'nextResetAt',
  'groups',
] as const;

interface SetOptions {
  limit?: number | 'none';
  expires?: Date | 'never';
  duration?: number;
  resetPeriod?: ResetPeriod;
  anchor?: Date;
  groups?: string[];
  credential?: Secret<string> | { none: true };
  yes?: boolean;
}

/** The commands of `core subscription …` that change a subscription. */
function addSubscriptionChanges(subscription: Command, run: Run): void {
  subscription
    .command('set')
    .description('Change some of it; the rest stays as it is')
    .argument('<id>', 'id of the subscription', id)
    .option('--limit <bytes>', 'traffic of a period, like 10GB, or none', bytesOrNone)
    .option('--expires <date>', 'when it ends, like 2030-01-31T00:00:00Z, or never', dateOrNever)
    .option('--duration <time>', 'how long it lasts from its next traffic, like 30d', duration)
    .option('--reset, --reset-period <period>', 'none, day, week or month', resetPeriod)
    .option('--anchor <date>', 'start of the first period, in UTC', date)
    .option('--groups <names>', 'all its groups, like default,premium', groupNames)
    .option(
      '--credential <text>',
      'what client apps hold, or @file, or -; none for new ones',
      credentialOrNone,
    )
    .option(...yesOption)
    .addHelpText(
      'after',
      `
${secretHelp}

Examples:
  core subscription set 1 --limit 20GB
  core subscription set 1 --limit none --expires never --reset-period month`,
    )
    .action(
      run(async (context, options: SetOptions, subscriptionId: number) => {
        refuseTwoEnds(options);
        const change = await changeOf(context, options);
        const pool = await context.postgres();
        if (change.groups !== undefined) {
          await confirmGroups(context, subscriptionId, change.groups, options.yes);
        }
        const changed = await changeSubscription(pool, subscriptionId, change);
        const { fields, text } = warned(change.credential);
        context.print({ ...changed, ...fields }, `${fieldsText({ ...changed })}${text}`);
      }),
    );
  addSwitch(
    subscription,
    run,
    'disable',
    'Remove a subscription from every configuration until it is enabled',
  );
  addSwitch(subscription, run, 'enable', 'Undo disable; expiry and limit still apply');
  addResetCommands(subscription, run);
  addRotateAndDelete(subscription, run);
}

/** A credential as above, or `none`. Only the option itself says none: a file with this word is a credential. */
const credentialOrNone = (given: string): Secret<string> | { none: true } =>
  given === 'none' ? { none: true } : secret(credential)(given);

/** @throws CoreError INVALID_ARGUMENT if no option changes anything. */
async function changeOf(context: CliContext, options: SetOptions): Promise<SubscriptionChange> {
  const { limit, expires, resetPeriod, anchor, groups, credential } = options;
  const change = {
    trafficLimitBytes: limit === 'none' ? null : limit,
    expiresAt: expires === 'never' ? null : expires,
    durationSeconds: options.duration,
    resetPeriod,
    anchorAt: anchor,
    groups,
    credential:
      credential !== undefined && 'none' in credential
        ? null
        : await readSecret(context, credential, credentialOption),
  };
  if (Object.values(change).some((value) => value !== undefined)) return change;
  throw new CoreError('INVALID_ARGUMENT', 'Nothing to set: see core subscription set --help');
}

/** Asks if links end. */
async function confirmGroups(
  context: CliContext,
  subscriptionId: number,
  groups: readonly string[],
  yes: boolean | undefined,
): Promise<void> {
  const pool = await context.postgres();
  const { userName } = await subscriptionEffects(pool, subscriptionId);
  const effects = await subscriptionGroupEffects(pool, subscriptionId, groups);
  if (effects.linksEnded === 0) return;
  await confirm(context, {
    what: `Changing the groups of subscription ${subscriptionId} of ${userName}`,
    effects: [
      `makes ${counted(effects.linksAdded, 'link')} and ends ${counted(effects.linksEnded, 'link')}`,
    ],
    answer: 'yes',
    yes,
    isUndoable: true,
  });
}

function addSwitch(
  subscription: Command,
  run: Run,
  command: 'disable' | 'enable',
  description: string,
): void {
  subscription
    .command(command)
    .description(description)
    .argument('<id>', 'id of the subscription', id)
    .addHelpText('after', `\nExample:\n  core subscription ${command} 1`)
    .action(
      run(async (context, _options, subscriptionId: number) => {
        const change = { disabled: command === 'disable' };
        context.print(await changeSubscription(await context.postgres(), subscriptionId, change));
      }),
    );
}

function addResetCommands(subscription: Command, run: Run): void {
  subscription
    .command('reset')
    .description('Start a new period at once: used traffic is zero again')
    .argument('<id>', 'id of the subscription', id)
    .addHelpText('after', '\nExample:\n  core subscription reset 1')
    .action(
      run(async (context, _options, subscriptionId: number) => {
        const pool = await context.postgres();
        await resetSubscription(pool, subscriptionId);
        context.print(await showSubscription(pool, subscriptionId));
      }),
    );

  subscription
    .command('history')
    .description('Resets of a subscription, newest first')
    .argument('<id>', 'id of the subscription', id)
    .option('--max <rows>', 'at most this many', rowsMax, 100)
    .addHelpText('after', '\nExample:\n  core subscription history 1')
    .action(
      run(async (context, options: { max: number }, subscriptionId: number) => {
        const pool = await context.postgres();
        await showSubscription(pool, subscriptionId);
        const found = await listResets(pool, { subscriptionId, rowsMax: options.max });
        const columns = ['resetAt', 'cause', 'dueAt', 'usedBytesUp', 'usedBytesDown'];
        context.print(found, objectsText(found, columns, 'It was never reset.'));
      }),
    );
}

function addRotateAndDelete(subscription: Command, run: Run): void {
  subscription
    .command('rotate')
    .description('Give all links of a subscription new credentials; the old ones stop working')
    .argument('<id>', 'id of the subscription', id)
    .option(...yesOption)
    .addHelpText('after', '\nExample:\n  core subscription rotate 1')
    .action(
      run(async (context, options: { yes?: boolean }, subscriptionId: number) => {
        await confirmEnd(context, 'Rotating all links of', subscriptionId, options);
        const links = await rotateLinks(await context.postgres(), subscriptionId);
        const columns = ['nodeProtocolId', 'nodeId', 'protocol', 'uuid'];
        context.print(links, objectsText(links, columns, 'It has no links.'));
      }),
    );

  subscription
    .command('delete')
    .description('Delete a subscription with its links; rows in ClickHouse stay')
    .argument('<id>', 'id of the subscription', id)
    .option(...yesOption)
    .addHelpText('after', '\nExample:\n  core subscription delete 1')
    .action(
      run(async (context, options: { yes?: boolean }, subscriptionId: number) => {
        await confirmEnd(context, 'Deleting', subscriptionId, options);
        const removed = await deleteSubscription(await context.postgres(), subscriptionId);
        context.print({ subscriptionId, deleted: true, ...removed });
      }),
    );
}

async function confirmEnd(
  context: CliContext,
  doing: string,
  subscriptionId: number,
  { yes }: { yes?: boolean },
): Promise<void> {
  const ended = await subscriptionEffects(await context.postgres(), subscriptionId);
  const { userName, links, nodes, activeSubscriptions } = ended;
  const state = activeSubscriptions === 0 ? 'not active' : 'active';
  await confirm(context, {
    what: `${doing} subscription ${subscriptionId} of ${userName}`,
    effects: [`ends ${counted(links, 'link')} on ${counted(nodes, 'node')} (it is ${state})`],
    answer: 'yes',
    yes,
  });
}
