import type { Command } from 'commander';
import { othersTag } from '../nodes/outbound-traffic.ts';
import { findPrunableTags, pruneOutbounds } from '../nodes/prune-outbounds.ts';
import { outboundSettings } from '../settings/harmless.ts';
import {
  addOutbound,
  listOutbounds,
  moveOutbound,
  type OutboundProtocol,
  removeOutbound,
  setOutbound,
} from '../settings/outbounds.ts';
import { name, nodeId, outboundProtocol, position, settings } from './arguments.ts';
import { confirm, counted, yesOption } from './confirm.ts';
import type { CliContext, Run } from './context.ts';
import { objectsText, settingsToShow } from './table.ts';

/** `core outbound …` */
export function addOutboundCommands(program: Command, run: Run): void {
  const outbound = program.command('outbound').description('Ways out of a node, and their traffic');

  takesOutbound(outbound.command('add'))
    .description('Configure an outbound; a tag that the node has reported keeps its counters')
    .addHelpText(
      'after',
      '\nExample:\n  core outbound add --node 1 --tag direct --protocol freedom',
    )
    .action(run((context, options: OutboundOptions) => put(context, options, addOutbound)));

  takesOutbound(outbound.command('set'))
    .description('Change the protocol and settings of an outbound')
    .addHelpText(
      'after',
      '\nExample:\n  core outbound set --node 1 --tag direct --protocol blackhole',
    )
    .action(run((context, options: OutboundOptions) => put(context, options, setOutbound)));

  outbound
    .command('move')
    .description('Change the order; the first outbound takes the traffic that no rule matches')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .requiredOption('--tag <tag>', 'the outbound to move', name)
    .requiredOption('--to <position>', 'its place among the configured outbounds, from 1', position)
    .addHelpText('after', '\nExample:\n  core outbound move --node 1 --tag direct --to 1')
    .action(
      run(async (context, { node, tag, to }: { node: number; tag: string; to: number }) => {
        await moveOutbound(await context.postgres(), { nodeId: node, tag, position: to });
        context.print({ nodeId: node, tag });
      }),
    );

  outbound
    .command('remove')
    .description('Remove an outbound from the configuration; its counters stay')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .requiredOption('--tag <tag>', 'the outbound to remove', name)
    .addHelpText('after', '\nExample:\n  core outbound remove --node 1 --tag warp')
    .action(
      run(async (context, { node, tag }: { node: number; tag: string }) => {
        await removeOutbound(await context.postgres(), { nodeId: node, tag });
        context.print({ nodeId: node, tag, status: 'removed' });
      }),
    );

  outbound
    .command('prune')
    .description('Fold tags that nobody configured into one; their counters move to it')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .option(...yesOption)
    .addHelpText('after', '\nExample:\n  core outbound prune --node 1 --yes')
    .action(run(prune));

  addOutboundList(outbound, run);
}

function addOutboundList(outbound: Command, run: Run): void {
  outbound
    .command('list')
    .description('Outbounds of a node with their traffic')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .option('--secrets', 'with their settings, including keys and everything else that is masked')
    .addHelpText('after', '\nExample:\n  core outbound list --node 1')
    .action(
      run(async (context, options: { node: number; secrets?: boolean }) => {
        const listed = await listOutbounds(await context.postgres(), options.node);
        const found = listed.map((one) => ({
          ...one,
          settings: settingsToShow(one.settings, outboundSettings, options),
        }));
        const columns = options.secrets === true ? [...listColumns, 'settings'] : listColumns;
        context.print(found, objectsText(found, columns, 'The node has no outbounds.'));
      }),
    );
}

const listColumns = ['tag', 'protocol', 'trafficBytesUp', 'trafficBytesDown', 'configured'];

async function prune(
  context: CliContext,
  { node, yes }: { node: number; yes?: boolean },
): Promise<void> {
  const pool = await context.postgres();
  const { tags, trafficBytesUp, trafficBytesDown } = await findPrunableTags(pool, node);
  await confirm(context, {
    what: `Pruning the outbounds of node ${node}`,
    effects: [
      `folds ${counted(tags, 'tag')} that nobody configured into ${othersTag}`,
      `moves ${trafficBytesUp} bytes up and ${trafficBytesDown} down there`,
    ],
    answer: 'yes',
    yes,
  });
  context.print({ nodeId: node, ...(await pruneOutbounds(pool, node)), movedTo: othersTag });
}

interface OutboundOptions {
  node: number;
  tag: string;
  protocol: OutboundProtocol;
  settings: Record<string, unknown>;
}

function takesOutbound(command: Command): Command {
  return command
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .requiredOption('--tag <tag>', 'name by which the node reports its traffic', name)
    .requiredOption('--protocol <protocol>', 'Xray outbound, like freedom', outboundProtocol)
    .option('--settings <json>', 'settings of the outbound: a JSON object or @file', settings, {});
}

async function put(
  context: CliContext,
  { node, ...outbound }: OutboundOptions,
  write: typeof addOutbound | typeof setOutbound,
): Promise<void> {
  await write(await context.postgres(), { ...outbound, nodeId: node });
  context.print({ nodeId: node, tag: outbound.tag });
}
