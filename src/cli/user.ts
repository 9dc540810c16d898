import type { Command } from 'commander';
import { createUser, listUsers } from '../subscriptions/users.ts';
import { afterId, name, rowsMax } from './arguments.ts';
import type { Run } from './run.ts';
import { renderObjects } from './table.ts';

/** `core user …` */
export function addUserCommands(program: Command, run: Run): void {
  const user = program.command('user').description('Users, who hold subscriptions');

  user
    .command('create')
    .description('Add a user')
    .requiredOption('--name <name>', 'what operators call the user', name)
    .addHelpText('after', '\nExample:\n  core user create --name alice')
    .action(
      run(async (context, options: { name: string }) => {
        context.print({ userId: await createUser(await context.postgres(), options) });
      }),
    );

  user
    .command('list')
    .description('Users by id, a page at a time')
    .option('--after <id>', 'start after this id', afterId, 0)
    .option('--max <rows>', 'at most this many', rowsMax, 1_000)
    .addHelpText('after', '\nExample:\n  core user list --after 1000')
    .action(
      run(async (context, options: { after: number; max: number }) => {
        const page = { afterId: options.after, rowsMax: options.max };
        const found = await listUsers(await context.postgres(), page);
        const columns = ['userId', 'name', 'createdAt'];
        context.print(found, renderObjects(found, columns, 'There are no users.'));
      }),
    );
}
