import type { Command } from 'commander';
import { CoreError } from '../errors.ts';
import { createNode, type NodeChange, setMaintenance, updateNode } from '../nodes/change.ts';
import type { NodeState } from '../nodes/node-state.ts';
import { listNodes, showNode } from '../nodes/node-state.ts';
import { host, hostOrNone, ip, name, nameOrNone, nodeId, onOrOff } from './arguments.ts';
import { addNodeEnds, printIssued } from './node-end.ts';
import { addNodeHistoryCommands } from './node-history.ts';
import type { Run } from './run.ts';
import { renderFields, renderObjects } from './table.ts';

/** `core node …` */
export function addNodeCommands(program: Command, run: Run): void {
  const node = program
    .command('node')
    .description('Nodes: add, look at, change, roll back, rekey, revoke, delete');

  node
    .command('create')
    .description('Add a node and issue the code that it registers with, once')
    .requiredOption('--name <name>', 'what operators call it', name)
    .option('--region <region>', 'where it stands', name, '')
    .option(
      '--host <host>',
      'public host name or address; else the one that the node reports',
      host,
      '',
    )
    .option('--ip <address>', 'public address, until the node reports another', ip, '')
    .addHelpText('after', '\nExample:\n  core node create --name berlin-1 --region eu')
    .action(
      run(async (context, options: { name: string; region: string; host: string; ip: string }) => {
        const issued = await createNode(await context.postgres(), options, context.config.nodes);
        printIssued(context, issued);
      }),
    );

  addNodeLists(node, run);
  addNodeEnds(node, run);

  node
    .command('set')
    .description('Change what a node is called and where it is')
    .argument('<id>', 'id of the node', nodeId)
    .option('--name <name>', 'what operators call it', name)
    .option('--region <region>', 'where it stands; empty: what the node reports', nameOrNone)
    .option(
      '--host <host>',
      'public host name or address; empty: what the node reports',
      hostOrNone,
    )
    .option('--ip <address>', 'public address, until the node reports another', ip)
    .addHelpText('after', '\nExample:\n  core node set 1 --name berlin-1')
    .action(
      run(async (context, change: NodeChange, id: number) => {
        if (Object.keys(change).length === 0) {
          throw new CoreError('INVALID_ARGUMENT', 'Nothing to change: name at least one option');
        }
        await updateNode(await context.postgres(), id, change);
        context.print({ nodeId: id, ...change });
      }),
    );

  node
    .command('maintenance')
    .description('Show a node as under maintenance, or end that; it is served all the same')
    .argument('<id>', 'id of the node', nodeId)
    .argument('<state>', 'on or off', onOrOff)
    .option('--reason <text>', 'why, for other operators', name)
    .addHelpText('after', '\nExample:\n  core node maintenance 1 on --reason "new disk"')
    .action(
      run(async (context, options: { reason?: string }, id: number, on: boolean) => {
        const reason = options.reason ?? null;
        await setMaintenance(await context.postgres(), id, on ? { on, reason } : { on });
        context.print({ nodeId: id, maintenance: on, reason: on ? reason : null });
      }),
    );

  addNodeHistoryCommands(node, run);
}

function addNodeLists(node: Command, run: Run): void {
  node
    .command('list')
    .description('All nodes with their state')
    .addHelpText('after', '\nExample:\n  core node list --json')
    .action(
      run(async (context) => {
        const nodes = await listNodes(await context.postgres(), context.config.nodes);
        const columns = [...listColumns, ...reportedColumns(nodes)];
        context.print(nodes, renderObjects(nodes, columns, 'There are no nodes.'));
      }),
    );

  node
    .command('show')
    .description('State of one node')
    .argument('<id>', 'id of the node', nodeId)
    .addHelpText('after', '\nExample:\n  core node show 1')
    .action(
      run(async (context, _options, id: number) => {
        const shown = await showNode(await context.postgres(), id, context.config.nodes);
        const same = reported.filter((field) => !reportedColumns([shown]).includes(field));
        const fields = Object.entries(shown).filter(([name]) => !same.some((one) => one === name));
        context.print(shown, renderFields(Object.fromEntries(fields)));
      }),
    );
}

const listColumns = [
  'nodeId',
  'name',
  'region',
  'host',
  'ip',
  'status',
  'syncStatus',
  'revision',
  'appliedRevision',
  'lastSeenAt',
] as const;

const reported = ['reportedName', 'reportedHost', 'reportedRegion'] as const;

/** What a node said of itself is shown if it differs from what holds. */
function reportedColumns(nodes: readonly NodeState[]): (typeof reported)[number][] {
  const differs = {
    reportedName: (node: NodeState) => node.reportedName !== node.name,
    reportedHost: (node: NodeState) => node.reportedHost !== node.host,
    reportedRegion: (node: NodeState) => node.reportedRegion !== node.region,
  };
  return reported.filter((field) =>
    nodes.some((node) => node[field] !== null && differs[field](node)),
  );
}
