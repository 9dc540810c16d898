import type { Command } from 'commander';
import { othersTag } from '../nodes/outbound-traffic.ts';
import { findPrunableTags, pruneOutbounds } from '../nodes/prune-outbounds.ts';
import type { OutboundProtocol } from '../protocols/outbound/outbound.ts';
import { outboundOptions, outboundSettings } from '../settings/harmless.ts';
import {
  addOutbound,
  listOutbounds,
  moveOutbound,
  removeOutbound,
  setOutbound,
} from '../settings/outbounds.ts';
import { name, nodeId, outboundProtocol, position, settings } from './arguments.ts';
import { confirm, counted, yesOption } from './confirm.ts';
import type { CliContext, Run } from './context.ts';
import { rawCheck } from './raw-check.ts';
import { objectsText, settingsToShow } from './table.ts';

/** `core outbound …` */
export function addOutboundCommands(program: Command, run: Run): void {
  const outbound = program.command('outbound').description('Ways out of a node, and their traffic');

  takesOutbound(outbound.command('add'))
    .description('Configure an outbound; a tag that the node has reported keeps its counters')
    .addHelpText(
      'after',
      `
Examples:
  core outbound add --node 1 --tag direct --protocol freedom
  core outbound add --node 1 --tag up --protocol trojan --settings @up.json \\
    --stream-settings '{"security":"tls","tlsSettings":{"serverName":"up.example.com"}}'

docs/routing.md has all settings.`,
    )
    .action(run((context, options: GivenOutbound) => put(context, options, addOutbound)));

  takesOutbound(outbound.command('set'))
    .description('Replace an outbound: its protocol, its settings and all other options')
    .addHelpText(
      'after',
      '\nExample:\n  core outbound set --node 1 --tag direct --protocol blackhole',
    )
    .action(run((context, options: GivenOutbound) => put(context, options, setOutbound)));

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
          options: settingsToShow(one.options, outboundOptions, options),
        }));
        const columns =
          options.secrets === true ? [...listColumns, 'settings', 'options'] : listColumns;
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

interface GivenOutbound {
  node: number;
  tag: string;
  protocol: OutboundProtocol;
  settings: Record<string, unknown>;
  streamSettings?: Record<string, unknown>;
  mux?: Record<string, unknown>;
  sendThrough?: string;
  targetStrategy?: string;
  through?: string;
  raw?: Record<string, unknown>;
}

function takesOutbound(command: Command): Command {
  return command
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .requiredOption('--tag <tag>', 'name by which the node reports its traffic', name)
    .requiredOption('--protocol <protocol>', 'Xray outbound, like freedom', outboundProtocol)
    .option('--settings <json>', 'settings of the outbound: a JSON object or @file', settings, {})
    .option('--stream-settings <json>', "Xray's streamSettings: network, security, …", settings)
    .option('--mux <json>', "Xray's mux: enabled, concurrency, …", settings)
    .option('--send-through <address>', 'an address of the node, origin or srcip')
    .option('--target-strategy <strategy>', 'how to resolve domains: AsIs, UseIP, …')
    .option('--through <tag>', 'another outbound to connect through (proxySettings)', name)
    .option(
      '--raw <json>',
      'merged into the outbound; a real Xray checks it, if one is at hand',
      settings,
    );
}

async function put(
  context: CliContext,
  { node, through, ...given }: GivenOutbound,
  write: typeof addOutbound | typeof setOutbound,
): Promise<void> {
  const proxySettings = through === undefined ? undefined : { tag: through };
  const outbound = { ...given, proxySettings };
  await write(await context.postgres(), { ...outbound, nodeId: node }, rawCheck(context));
  context.print({ nodeId: node, tag: outbound.tag });
}
