import type { Command } from 'commander';
import { addOutbound, listOutbounds, type OutboundProtocol } from '../nodes/outbounds.ts';
import { name, nodeId, outboundProtocol, settings } from './arguments.ts';
import type { Run } from './run.ts';
import { renderObjects } from './table.ts';

/** `core outbound …` */
export function addOutboundCommands(program: Command, run: Run): void {
  const outbound = program.command('outbound').description('Ways out of a node, and their traffic');

  outbound
    .command('add')
    .description('Configure an outbound; a tag known from usage reports keeps its counters')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .requiredOption('--tag <tag>', 'name by which the node reports its traffic', name)
    .requiredOption('--protocol <protocol>', 'Xray outbound, like freedom', outboundProtocol)
    .option('--settings <json>', 'settings of the outbound: a JSON object or @file', settings, {})
    .addHelpText(
      'after',
      '\nExample:\n  core outbound add --node 1 --tag direct --protocol freedom',
    )
    .action(
      run(async (context, options: AddOptions) => {
        const { node, ...added } = options;
        await addOutbound(await context.postgres(), { ...added, nodeId: node });
        context.print({ nodeId: node, tag: added.tag });
      }),
    );

  outbound
    .command('list')
    .description('Outbounds of a node with their traffic')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .addHelpText('after', '\nExample:\n  core outbound list --node 1')
    .action(
      run(async (context, options: { node: number }) => {
        const found = await listOutbounds(await context.postgres(), options.node);
        const columns = ['tag', 'trafficBytesUp', 'trafficBytesDown', 'configured'];
        context.print(found, renderObjects(found, columns, 'The node has no outbounds.'));
      }),
    );
}

interface AddOptions {
  node: number;
  tag: string;
  protocol: OutboundProtocol;
  settings: Record<string, unknown>;
}
