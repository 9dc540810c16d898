import type { Command } from 'commander';
import { type VpnProtocol, vpnProtocols } from '../contract/enums.ts';
import { addProtocol, listProtocols } from '../nodes/protocols.ts';
import { nodeId, port, settings, vpnProtocol } from './arguments.ts';
import { protocolSettingsHelp } from './protocol-settings-help.ts';
import type { Run } from './run.ts';
import { renderObjects } from './table.ts';

/** `core protocol …` */
export function addProtocolCommands(program: Command, run: Run): void {
  const protocol = program.command('protocol').description('Protocols that a node serves');

  protocol
    .command('add')
    .description('Let a node serve a protocol on a port')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .requiredOption('--protocol <protocol>', vpnProtocols.join(', '), vpnProtocol)
    .requiredOption('--port <port>', 'port that the node listens on', port)
    .option('--settings <json>', 'settings of the protocol: a JSON object or @file', settings, {})
    .addHelpText(
      'after',
      `
${protocolSettingsHelp}
Examples:
  core protocol add --node 1 --protocol VLESS --port 443
  core protocol add --node 1 --protocol VLESS --port 443 --settings \
    '{"security":"reality","flow":"xtls-rprx-vision","reality":{"target":"www.example.com:443"}}'
  core protocol add --node 1 --protocol SHADOWSOCKS --port 8388
  core protocol add --node 1 --protocol MTPROTO --port 8443 --settings @mtproto.json`,
    )
    .action(
      run(async (context, options: AddOptions) => {
        const { node, ...added } = options;
        context.print(await addProtocol(await context.postgres(), { ...added, nodeId: node }));
      }),
    );

  protocol
    .command('list')
    .description('Protocols of one node, or of all')
    .option('--node <id>', 'id of the node', nodeId)
    .addHelpText('after', '\nExample:\n  core protocol list --node 1')
    .action(
      run(async (context, options: { node?: number }) => {
        const found = await listProtocols(await context.postgres(), { nodeId: options.node });
        const columns = ['nodeProtocolId', 'nodeId', 'protocol', 'port', 'settings'];
        context.print(found, renderObjects(found, columns, 'There are no protocols.'));
      }),
    );
}

interface AddOptions {
  node: number;
  protocol: VpnProtocol;
  port: number;
  settings: Record<string, unknown>;
}
