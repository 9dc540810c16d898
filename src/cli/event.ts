import type { Command } from 'commander';
import { listEvents } from '../subscriptions/events.ts';
import { afterId, id, rowsMax } from './arguments.ts';
import type { Run } from './context.ts';
import { objectsText } from './table.ts';

/** `core event …` */
export function addEventCommands(program: Command, run: Run): void {
  const event = program.command('event').description('What happened to subscriptions');

  event
    .command('list')
    .description('Events by id, a page at a time')
    .option('--subscription <id>', 'only those of this subscription', id)
    .option('--after <id>', 'start after this id', afterId, 0)
    .option('--max <rows>', 'at most this many', rowsMax, 1_000)
    .addHelpText('after', '\nExample:\n  core event list --subscription 1')
    .action(
      run(async (context, options: { subscription?: number; after: number; max: number }) => {
        const found = await listEvents(await context.postgres(), {
          subscriptionId: options.subscription,
          afterId: options.after,
          rowsMax: options.max,
        });
        const columns = ['eventId', 'at', 'subscriptionId', 'kind', 'data'];
        context.print(found, objectsText(found, columns, 'There are no events.'));
      }),
    );
}
