import type { Command } from 'commander';
import { CoreError } from '../errors.ts';
import { createGroup, listGroups, removeGroup, renameGroup, showGroup } from '../groups/groups.ts';
import { listMemberProtocols, listMemberSubscriptions } from '../groups/list-members.ts';
import { changeMembers, type IdRange, type MembersChange } from '../groups/members.ts';
import { afterId, groupName, idRanges, rowsMax } from './arguments.ts';
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

  addGroupShow(group, run);
  addGroupRemove(group, run);
  addMemberCommand(group, run, 'add', 'Put subscriptions and protocols into a group');
  addMemberCommand(group, run, 'remove-members', 'Take subscriptions and protocols out of a group');
}

interface ShowOptions {
  protocols?: boolean;
  subscriptions?: boolean;
  after: number;
  max: number;
}

function addGroupShow(group: Command, run: Run): void {
  group
    .command('show')
    .description('One group and how much is in it, or a page of its members by id')
    .argument('<name>', 'name of the group', groupName)
    .option('--protocols', 'its protocols')
    .option('--subscriptions', 'its subscriptions')
    .option('--after <id>', 'start after this id', afterId, 0)
    .option('--max <rows>', 'at most this many', rowsMax, 1_000)
    .addHelpText(
      'after',
      `
Examples:
  core group show premium
  core group show premium --protocols
  core group show premium --subscriptions --after 1000`,
    )
    .action(
      run(async (context, options: ShowOptions, name: string) => {
        const { protocols, subscriptions, after, max } = options;
        if (protocols === true && subscriptions === true) {
          throw new CoreError('INVALID_ARGUMENT', 'Give --protocols or --subscriptions, not both');
        }
        const pool = await context.postgres();
        const page = { afterId: after, rowsMax: max };
        if (protocols === true) {
          const found = await listMemberProtocols(pool, name, page);
          const columns = ['nodeProtocolId', 'nodeId', 'nodeName', 'name', 'protocol', 'port'];
          return context.print(found, objectsText(found, columns, 'There are no protocols.'));
        }
        if (subscriptions === true) {
          const found = await listMemberSubscriptions(pool, name, page);
          const columns = ['subscriptionId', 'userId', 'userName', 'status'];
          return context.print(found, objectsText(found, columns, 'There are no subscriptions.'));
        }
        return context.print(await showGroup(pool, name));
      }),
    );
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
        const ended = await removeGroup(pool, name, { dryRun: true });
        const { subscriptions, protocols, linksEnded } = ended;
        if (linksEnded > 0) {
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
${
  action === 'add'
    ? 'It says how many links this has made.'
    : 'If links would end, it says how many, and asks.'
} All of it happens or nothing.

Examples:
  core group ${command} premium --subscriptions 1,2,5-900 --nodes 3
  core group ${command} premium --subscriptions @ids.txt`,
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

/** Changes a group. It first counts what would change, and asks if a link would end. */
async function changeGroup(
  context: CliContext,
  change: MembersChange,
  yes: boolean | undefined,
): Promise<void> {
  const pool = await context.postgres();
  if (change.action === 'remove') await confirmEnd(context, change, yes);
  context.print({ group: change.group, ...(await changeMembers(pool, change, { dryRun: false })) });
}

async function confirmEnd(
  context: CliContext,
  change: MembersChange,
  yes: boolean | undefined,
): Promise<void> {
  const ended = await changeMembers(await context.postgres(), change, { dryRun: true });
  if (ended.linksEnded === 0) return;
  const { subscriptions, protocols, linksEnded, nodes } = ended;
  await confirm(context, {
    what: `Removing from group ${change.group}`,
    effects: [
      `takes ${counted(subscriptions, 'subscription')} and ${counted(protocols, 'protocol')} out of it`,
      `ends ${counted(linksEnded, 'link')}`,
      `changes ${counted(nodes, 'node')}`,
    ],
    answer: 'yes',
    yes,
    isUndoable: true,
  });
}
