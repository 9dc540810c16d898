import type { Command } from 'commander';
import { createSubscription } from '../subscriptions/create.ts';
import type { ResetPeriod } from '../subscriptions/period.ts';
import { listSubscriptions, showSubscription } from '../subscriptions/show.ts';
import { afterId, bytes, date, id, resetPeriod, rowsMax } from './arguments.ts';
import { addImportCommand } from './import/command.ts';
import type { Run } from './run.ts';
import { addSubscriptionChanges } from './subscription-change.ts';
import { renderFields, renderObjects } from './table.ts';

/** `core subscription …` */
export function addSubscriptionCommands(program: Command, run: Run): void {
  const subscription = program
    .command('subscription')
    .description('Subscriptions: what a user may use, and has used');

  subscription
    .command('create')
    .description('Give a user access to every protocol of every node')
    .requiredOption('--user <id>', 'id of the user', id)
    .option('--limit <bytes>', 'traffic, up and down together, like 10GB or 512MiB', bytes)
    .option('--expires <date>', 'when it ends, like 2030-01-31T00:00:00Z', date)
    .option('--reset, --reset-period <period>', 'none, day, week or month', resetPeriod)
    .option('--anchor <date>', 'what periods are counted from, in UTC (default: now)', date)
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
        const table = renderObjects(
          links,
          ['nodeProtocolId', 'uuid'],
          'No links yet: no node has a protocol.',
        );
        context.print(created, `${renderFields({ subscriptionId })}\n${table}`);
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
        context.print(found, renderObjects(found, listColumns, 'There are no subscriptions.'));
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
