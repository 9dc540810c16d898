import type { Command } from 'commander';
import { CoreError } from '../errors.ts';
import {
  createNode,
  deleteNode,
  type IssuedNode,
  type NodeChange,
  rekeyNode,
  revokeNode,
  setMaintenance,
  updateNode,
} from '../nodes/change.ts';
import { type NodeEffects, nodeEffects } from '../nodes/effects.ts';
import { listNodes, type NodeState, showNode } from '../nodes/node-state.ts';
import { readVersionFaults } from '../publish/drift.ts';
import { readRawParts } from '../publish/raw-parts.ts';
import type { VersionFault } from '../render/xray-versions.ts';
import { host, hostOrNone, ip, name, nameOrNone, nodeId, onOrOff } from './arguments.ts';
import { confirm, counted, countedLinks, yesOption } from './confirm.ts';
import type { CliContext, Run } from './context.ts';
import { addNodeHistoryCommands, faultyText, rawText, versionsInTurnText } from './node-history.ts';
import { addNodePostsCommand, missingPosts } from './node-posts.ts';
import { addNodeTest } from './node-test.ts';
import { fieldsText, objectsText } from './table.ts';

/** `core node …` */
export function addNodeCommands(program: Command, run: Run): void {
  const node = program
    .command('node')
    .description('Nodes: add, look at, change, roll back, rekey, revoke, delete');

  node
    .command('create')
    .description('Add a node and issue the code that it registers with, once')
    .requiredOption('--name <name>', 'what operators call it', name)
    .option('--region <region>', 'where it is', name, '')
    .option(
      '--host <host>',
      'public host name or address; if not given, what the node reports',
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
  addNodeChanges(node, run);
  addNodeHistoryCommands(node, run);
  addNodePostsCommand(node, run);
  addNodeTest(node, run);
}

/** `core node list` and `show`. */
function addNodeLists(node: Command, run: Run): void {
  node
    .command('list')
    .description('All nodes with their state')
    .addHelpText('after', '\nExample:\n  core node list --json')
    .action(
      run(async (context) => {
        const nodes = await listNodes(await context.postgres(), context.config.nodes);
        const rows = nodes.map((node) => ({
          ...node,
          versions: valuesText(node.versions),
          load: valuesText(node.load),
        }));
        const known = (['versions', 'load'] as const).filter((column) =>
          rows.some((row) => row[column] !== null),
        );
        const columns = [...listColumns, ...reportedColumns(nodes), ...known];
        context.print(nodes, objectsText(rows, columns, 'There are no nodes.'));
      }),
    );

  node
    .command('show')
    .description('State of one node')
    .argument('<id>', 'id of the node', nodeId)
    .addHelpText('after', '\nExample:\n  core node show 1')
    .action(
      run(async (context, _options, id: number) => {
        const pool = await context.postgres();
        const shown = await showNode(pool, id, context.config.nodes);
        const same = reported.filter((field) => !reportedColumns([shown]).includes(field));
        const faults = (await readVersionFaults(pool, id)).get(id) ?? [];
        const raw = (await readRawParts(pool, id)).get(id) ?? [];
        const missing = await missingPosts(context, id);
        const all = {
          ...shownFields(shown, faults),
          'raw JSON': rawText(raw),
          'missing posts': missing?.text ?? null,
        };
        const fields = Object.entries(all).filter(([name]) => !same.some((one) => one === name));
        context.print(
          { ...shown, versionFaults: faults, raw, missingPosts: missing?.count ?? null },
          fieldsText(Object.fromEntries(fields)),
        );
      }),
    );
}

/** The fields of a node as text, with what an operator must act on in words. */
function shownFields(node: NodeState, faults: readonly VersionFault[]): Record<string, unknown> {
  const { versions, versionsInTurn, load, faulty, ...rest } = node;
  const alarm = faulty && faultyText(node.nodeId, node.rolledBackTo, faulty);
  return {
    ...rest,
    'refused by the node': alarm,
    versions: valuesText(versions),
    load: valuesText(load),
    'versions in turn': versionsInTurn && versionsInTurnText(versions, versionsInTurn),
    'version too old': faults.map(({ message }) => message).join('; ') || null,
  };
}

/** Like `agent 1.2.0, xray 26.7.28`; null if nothing is known. */
function valuesText(values: Record<string, string | number | null>): string | null {
  const known = Object.entries(values).filter(([, value]) => value !== null);
  return known.length === 0 ? null : known.map(([name, value]) => `${name} ${value}`).join(', ');
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

/** The columns for what a node says of itself. Each is shown only if it differs from what Core uses. */
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

/** `core node set` and `maintenance`. */
function addNodeChanges(node: Command, run: Run): void {
  node
    .command('set')
    .description('Change what a node is called and where it is')
    .argument('<id>', 'id of the node', nodeId)
    .option('--name <name>', 'what operators call it', name)
    .option('--region <region>', 'where it is; empty: what the node reports', nameOrNone)
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
    .description('Mark a node as under maintenance, or end that; Core serves it all the same')
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
}

interface EndOptions {
  yes?: boolean;
}

/** `core node rekey`, `revoke` and `delete`. A node does not come back from these by itself. */
function addNodeEnds(node: Command, run: Run): void {
  ending(node, 'rekey', 'Issue a new code; the old key stops working at once').action(
    run(async (context, options: EndOptions, id: number) => {
      await confirmEnd(context, 'Issuing a new code for', id, options, (node) => [
        ...keyEffects(node),
        `leaves it without a configuration until it registers with the new code, with its ${countedLinks(node)}`,
      ]);
      printIssued(context, await rekeyNode(await context.postgres(), id, context.config.nodes));
    }),
  );

  ending(node, 'revoke', 'End a node permanently: its key stops working at once').action(
    run(async (context, options: EndOptions, id: number) => {
      await confirmEnd(context, 'Revoking', id, options, (node) => [
        ...keyEffects(node),
        'ends it permanently: it can never register again',
        `leaves its ${countedLinks(node)}, but nobody keeps the node up to date`,
      ]);
      await revokeNode(await context.postgres(), id);
      context.print({ nodeId: id, status: 'revoked' });
    }),
  );

  ending(node, 'delete', 'Remove a node with its protocols, links, outbounds and history').action(
    run(async (context, options: EndOptions, id: number) => {
      await confirmEnd(context, 'Deleting', id, options, (node) => [
        ...keyEffects(node),
        `ends ${counted(node.protocols, 'protocol')} and ${countedLinks(node)}`,
        'removes its outbounds with their counters, its rules and its history',
      ]);
      const removed = await deleteNode(await context.postgres(), id);
      context.print({ nodeId: id, status: 'deleted', ...removed });
    }),
  );
}

function ending(node: Command, name: 'rekey' | 'revoke' | 'delete', description: string): Command {
  return node
    .command(name)
    .description(description)
    .argument('<id>', 'id of the node', nodeId)
    .option(...yesOption)
    .addHelpText('after', `\nExample:\n  core node ${name} 1`);
}

async function confirmEnd(
  context: CliContext,
  doing: string,
  id: number,
  { yes }: EndOptions,
  effectsOf: (node: NodeEffects) => string[],
): Promise<void> {
  const node = await nodeEffects(await context.postgres(), id);
  const what = `${doing} node ${id} (${node.name})`;
  await confirm(context, { what, effects: effectsOf(node), answer: node.name, yes });
}

function keyEffects({ isRegistered }: NodeEffects): string[] {
  return [isRegistered ? 'ends its key at once' : 'ends the code that it has'];
}

/** Prints the code. Core shows it this once only. */
function printIssued(context: CliContext, issued: IssuedNode): void {
  const { nodeId, code, expiresAt } = issued;
  context.print({ nodeId, code }, fieldsText({ nodeId, code, 'valid until': expiresAt }));
}
