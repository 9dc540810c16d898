import type { Command } from 'commander';
import { CoreError } from '../errors.ts';
import { changeSubscription } from '../subscriptions/change.ts';
import { createSubscription } from '../subscriptions/create.ts';
import { deleteSubscription } from '../subscriptions/delete.ts';
import { listResets, resetSubscription } from '../subscriptions/due.ts';
import { rotateLinks } from '../subscriptions/links.ts';
import type { ResetPeriod } from '../subscriptions/period.ts';
import { listSubscriptions, showSubscription, subscriptionEffects } from '../subscriptions/show.ts';
import {
  afterId,
  bytes,
  bytesOrNone,
  date,
  dateOrNever,
  id,
  resetPeriod,
  rowsMax,
} from './arguments.ts';
import { confirm, counted, yesOption } from './confirm.ts';
import type { CliContext, Run } from './context.ts';
import { addImportCommand } from './import/command.ts';
import { fieldsText, objectsText } from './table.ts';

/** `core subscription …` */
export function addSubscriptionCommands(program: Command, run: Run): void {
  const subscription = program
    .command('subscription')
    .description('Subscriptions: what a user may use and has used');

  subscription
    .command('create')
    .description('Give a user access to every protocol of every node')
    .requiredOption('--user <id>', 'id of the user', id)
    .option('--limit <bytes>', 'traffic, up and down together, like 10GB or 512MiB', bytes)
    .option('--expires <date>', 'when it ends, like 2030-01-31T00:00:00Z', date)
    .option('--reset, --reset-period <period>', 'none, day, week or month', resetPeriod)
    .option('--anchor <date>', 'start of the first period, in UTC (default: now)', date)
    .addHelpText(
      'after',
      `
Examples:
  core subscription create --user 1 --limit 10GB
  core subscription create --user 1 --limit 10GB --reset month --anchor 2030-01-31T00:00:00Z`,
    )
    .action(
      run(async (context, options: CreateOptions) => {
        const created = await createSubscription(await context.postgres(), {
          userId: options.user,
          trafficLimitBytes: options.limit ?? null,
          expiresAt: options.expires ?? null,
          resetPeriod: options.resetPeriod,
          anchorAt: options.anchor,
        });
        const { subscriptionId, links } = created;
        const table = objectsText(
          links,
          ['nodeProtocolId', 'uuid'],
          'No links yet: no node has a protocol.',
        );
        context.print(created, `${fieldsText({ subscriptionId })}\n${table}`);
      }),
    );

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
  addImportCommand(subscription, run);
}

interface CreateOptions {
  user: number;
  limit?: number;
  expires?: Date;
  resetPeriod?: ResetPeriod;
  anchor?: Date;
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
  'resetPeriod',
  'nextResetAt',
] as const;

interface SetOptions {
  limit?: number | 'none';
  expires?: Date | 'never';
  resetPeriod?: ResetPeriod;
  anchor?: Date;
}

/** The commands of `core subscription …` that change a subscription. */
function addSubscriptionChanges(subscription: Command, run: Run): void {
  subscription
    .command('set')
    .description('Change limit, expiry or period; the others stay as they are')
    .argument('<id>', 'id of the subscription', id)
    .option('--limit <bytes>', 'traffic of a period, like 10GB, or none', bytesOrNone)
    .option('--expires <date>', 'when it ends, like 2030-01-31T00:00:00Z, or never', dateOrNever)
    .option('--reset, --reset-period <period>', 'none, day, week or month', resetPeriod)
    .option('--anchor <date>', 'start of the first period, in UTC', date)
    .addHelpText(
      'after',
      `
Examples:
  core subscription set 1 --limit 20GB
  core subscription set 1 --limit none --expires never --reset-period month`,
    )
    .action(
      run(async (context, options: SetOptions, subscriptionId: number) => {
        const { limit, expires, resetPeriod, anchor } = options;
        const change = {
          trafficLimitBytes: limit === 'none' ? null : limit,
          expiresAt: expires === 'never' ? null : expires,
          resetPeriod,
          anchorAt: anchor,
        };
        if (Object.values(change).every((value) => value === undefined)) {
          throw new CoreError(
            'INVALID_ARGUMENT',
            'Nothing to set: see core subscription set --help',
          );
        }
        const pool = await context.postgres();
        context.print(await changeSubscription(pool, subscriptionId, change));
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
    .description('Give all links of a subscription new UUIDs; the old ones stop working')
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
