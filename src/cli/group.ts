import type { Command } from 'commander';
import { CoreError } from '../errors.ts';
import { createGroup, listGroups, removeGroup, renameGroup, showGroup } from '../groups/groups.ts';
import { changeMembers, type IdRange, type MembersChange } from '../groups/members.ts';
import { groupName, idRanges } from './arguments.ts';
import { confirm, counted, yesOption } from './confirm.ts';
import type { CliContext, Run } from './context.ts';
import { objectsText } from './table.ts';

/** `core group …` */
export function addGroupCommands(program: Command, run: Run): void {
  const group = program
    .command('group')
    .description('Groups: a link exists where a subscription and a protocol have one in common');

  group
    .command('create')
    .description('Add a group without members')
    .argument('<name>', 'name of the group', groupName)
    .addHelpText('after', '\nExample:\n  core group create premium')
    .action(
      run(async (context, _options, name: string) => {
        const pool = await context.postgres();
        await createGroup(pool, name);
        context.print(await showGroup(pool, name));
      }),
    );

  group
    .command('rename')
    .description('Give a group another name; its links stay')
    .argument('<name>', 'name of the group', groupName)
    .argument('<new-name>', 'its new name', groupName)
    .addHelpText('after', '\nExample:\n  core group rename premium gold')
    .action(
      run(async (context, _options, name: string, newName: string) => {
        const pool = await context.postgres();
        await renameGroup(pool, name, newName);
        context.print(await showGroup(pool, newName));
      }),
    );

  group
    .command('list')
    .description('All groups, and how much is in them')
    .addHelpText('after', '\nExample:\n  core group list')
    .action(
      run(async (context) => {
        const found = await listGroups(await context.postgres());
        const columns = ['name', 'subscriptions', 'protocols', 'nodes'];
        context.print(found, objectsText(found, columns, 'There are no groups.'));
      }),
    );

  group
    .command('show')
    .description('One group')
    .argument('<name>', 'name of the group', groupName)
    .addHelpText('after', '\nExample:\n  core group show premium')
    .action(
      run(async (context, _options, name: string) => {
        context.print(await showGroup(await context.postgres(), name));
      }),
    );
  addGroupRemove(group, run);
  addMemberCommand(group, run, 'add', 'Put subscriptions and protocols into a group');
  addMemberCommand(group, run, 'remove-members', 'Take subscriptions and protocols out of a group');
}

function addGroupRemove(group: Command, run: Run): void {
  group
    .command('remove')
    .description('Remove a group; links that no other group makes end')
    .argument('<name>', 'name of the group', groupName)
    .option(...yesOption)
    .addHelpText('after', '\nExample:\n  core group remove premium')
    .action(
      run(async (context, { yes }: { yes?: boolean }, name: string) => {
        const pool = await context.postgres();
        const { subscriptions, protocols, linksEnded } = await removeGroup(pool, name, {
          dryRun: true,
        });
        if (subscriptions + protocols > 0) {
          await confirm(context, {
            what: `Removing group ${name}`,
            effects: [
              `takes ${counted(subscriptions, 'subscription')} and ${counted(protocols, 'protocol')} out of it`,
              `ends ${counted(linksEnded, 'link')}`,
            ],
            answer: name,
            yes,
          });
        }
        context.print({ name, ...(await removeGroup(pool, name, { dryRun: false })) });
      }),
    );
}

interface MemberOptions {
  subscriptions?: IdRange[];
  protocols?: IdRange[];
  nodes?: IdRange[];
  allSubscriptions?: boolean;
  allProtocols?: boolean;
  yes?: boolean;
}

function addMemberCommand(
  group: Command,
  run: Run,
  command: 'add' | 'remove-members',
  description: string,
): void {
  const action = command === 'add' ? 'add' : 'remove';
  group
    .command(command)
    .description(description)
    .argument('<name>', 'name of the group', groupName)
    .option(
      '--subscriptions <ids>',
      'ids like 1,2,5-900, or @file with one or more a line',
      idRanges,
    )
    .option('--protocols <ids>', 'ids of protocols, in the same form', idRanges)
    .option('--nodes <ids>', 'all protocols of these nodes, in the same form', idRanges)
    .option('--all-subscriptions', 'every subscription that there is now')
    .option('--all-protocols', 'every protocol that there is now')
    .option(...yesOption)
    .addHelpText(
      'after',
      `
It says how many links this makes and ends, and asks. All of it happens or nothing.

Examples:
  core group ${command} premium --subscriptions 1,2,5-900 --nodes 3
  core group ${command} premium --subscriptions @ids.txt --yes`,
    )
    .action(
      run(async (context, options: MemberOptions, name: string) => {
        await changeGroup(context, { group: name, action, ...selectionsOf(options) }, options.yes);
      }),
    );
}

function selectionsOf(
  options: MemberOptions,
): Pick<MembersChange, 'subscriptions' | 'protocols' | 'nodes'> {
  const { subscriptions, protocols, nodes, allSubscriptions, allProtocols } = options;
  if (subscriptions !== undefined && allSubscriptions === true) throw both('subscriptions');
  if (allProtocols === true && protocols !== undefined) throw both('protocols');
  const selected = {
    subscriptions: allSubscriptions === true ? ('all' as const) : subscriptions,
    protocols: allProtocols === true ? ('all' as const) : protocols,
    nodes,
  };
  if (Object.values(selected).some((given) => given !== undefined)) return selected;
  throw new CoreError(
    'INVALID_ARGUMENT',
    'Name members: --subscriptions, --protocols, --nodes, --all-subscriptions or --all-protocols',
  );
}

function both(what: string): CoreError {
  return new CoreError('INVALID_ARGUMENT', `Give --${what} or --all-${what}, not both`);
}

/** Counts what would change, asks, and changes it. */
async function changeGroup(
  context: CliContext,
  change: MembersChange,
  yes: boolean | undefined,
): Promise<void> {
  const pool = await context.postgres();
  const { linksAdded, linksEnded, ...counts } = await changeMembers(pool, change, { dryRun: true });
  if (linksAdded + linksEnded > 0) {
    const [doing, direction] =
      change.action === 'add' ? ['Adding to', 'puts'] : ['Removing from', 'takes'];
    const place = change.action === 'add' ? 'into it' : 'out of it';
    await confirm(context, {
      what: `${doing} group ${change.group}`,
      effects: [
        `${direction} ${counted(counts.subscriptions, 'subscription')} and ${counted(counts.protocols, 'protocol')} ${place}`,
        `makes ${counted(linksAdded, 'link')} and ends ${counted(linksEnded, 'link')}`,
        `changes ${counted(counts.nodes, 'node')}`,
      ],
      answer: 'yes',
      yes,
      isUndoable: true,
    });
  }
  context.print({ group: change.group, ...(await changeMembers(pool, change, { dryRun: false })) });
}
