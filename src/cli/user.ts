import type { Command } from 'commander';
import { deleteUser, requireInactive } from '../subscriptions/delete.ts';
import { userEffects } from '../subscriptions/show.ts';
import { createUser, listUsers, renameUser, showUser } from '../subscriptions/users.ts';
import { afterId, id, name, rowsMax } from './arguments.ts';
import { confirm, counted, yesOption } from './confirm.ts';
import type { Run } from './context.ts';
import { objectsText } from './table.ts';

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
        context.print(found, objectsText(found, columns, 'There are no users.'));
      }),
    );

  user
    .command('show')
    .description('One user')
    .argument('<id>', 'id of the user', id)
    .addHelpText('after', '\nExample:\n  core user show 1')
    .action(
      run(async (context, _options, userId: number) => {
        context.print(await showUser(await context.postgres(), userId));
      }),
    );

  user
    .command('rename')
    .description('Give a user another name')
    .argument('<id>', 'id of the user', id)
    .requiredOption('--name <name>', 'the new name', name)
    .addHelpText('after', '\nExample:\n  core user rename 1 --name alice')
    .action(
      run(async (context, options: { name: string }, userId: number) => {
        await renameUser(await context.postgres(), { userId, name: options.name });
        context.print({ userId, name: options.name });
      }),
    );

  addUserDelete(user, run);
}

function addUserDelete(user: Command, run: Run): void {
  user
    .command('delete')
    .description('Delete a user with all subscriptions; rows in ClickHouse stay')
    .argument('<id>', 'id of the user', id)
    .option('--force', 'even if subscriptions are active')
    .option(...yesOption)
    .addHelpText('after', '\nExample:\n  core user delete 1 --force')
    .action(
      run(async (context, options: { force?: boolean; yes?: boolean }, userId: number) => {
        const pool = await context.postgres();
        const force = options.force === true;
        const effects = await userEffects(pool, userId);
        if (!force) requireInactive(userId, effects.activeSubscriptions);
        const { userName, subscriptions, links, nodes } = effects;
        await confirm(context, {
          what: `Deleting user ${userId} (${userName})`,
          effects: [
            `ends ${counted(subscriptions, 'subscription')} and ${counted(links, 'link')} on ${counted(nodes, 'node')}`,
          ],
          answer: userName,
          yes: options.yes,
        });
        const deleted = await deleteUser(pool, userId, { force });
        context.print({ ...deleted, deleted: true });
      }),
    );
}
