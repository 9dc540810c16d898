import type { Command } from 'commander';
import { CoreError } from '../errors.ts';
import { changeSubscription } from '../subscriptions/change.ts';
import { deleteSubscription } from '../subscriptions/delete.ts';
import { listResets, resetSubscription } from '../subscriptions/due.ts';
import { rotateLinks } from '../subscriptions/links.ts';
import type { ResetPeriod } from '../subscriptions/period.ts';
import { showSubscription, subscriptionEffects } from '../subscriptions/show.ts';
import { bytesOrNone, date, dateOrNever, id, resetPeriod, rowsMax } from './arguments.ts';
import { confirm, counted, yesOption } from './confirm.ts';
import type { CliContext } from './context.ts';
import type { Run } from './run.ts';
import { renderObjects } from './table.ts';

interface SetOptions {
  limit?: number | 'none';
  expires?: Date | 'never';
  resetPeriod?: ResetPeriod;
  anchor?: Date;
}

/** The commands of `core subscription …` that change one. */
export function addSubscriptionChanges(subscription: Command, run: Run): void {
  subscription
    .command('set')
    .description('Change limit, expiry or period; what is not given stays')
    .argument('<id>', 'id of the subscription', id)
    .option('--limit <bytes>', 'traffic of a period, like 10GB, or none', bytesOrNone)
    .option('--expires <date>', 'when it ends, like 2030-01-31T00:00:00Z, or never', dateOrNever)
    .option('--reset, --reset-period <period>', 'none, day, week or month', resetPeriod)
    .option('--anchor <date>', 'what periods are counted from, in UTC', date)
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
  addSwitch(subscription, run, 'disable', 'Take a subscription out of every config until enabled');
  addSwitch(subscription, run, 'enable', 'Undo disable; expiry and limit still hold');
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
    .description('Start the period anew at once: used traffic is nothing again')
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
        context.print(found, renderObjects(found, columns, 'It was never reset.'));
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
        context.print(links, renderObjects(links, columns, 'It has no links.'));
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
