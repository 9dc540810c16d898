import type { Command } from 'commander';
import { requireNode } from '../nodes/lock-node.ts';
import { listErrors } from '../nodes/reports.ts';
import { listDrift, type NodeDrift } from '../publish/drift.ts';
import { listRevisions } from '../publish/revisions.ts';
import { rollBackNode } from '../publish/rollback.ts';
import { nodeId, revision } from './arguments.ts';
import type { Run } from './context.ts';
import { objectsText } from './table.ts';

/** `core node revisions`, `errors`, `drift` and `rollback`. */
export function addNodeHistoryCommands(node: Command, run: Run): void {
  node
    .command('revisions')
    .description('Revisions of a node, newest first, with causes and reports')
    .argument('<id>', 'id of the node', nodeId)
    .addHelpText('after', '\nExample:\n  core node revisions 1')
    .action(
      run(async (context, _options, id: number) => {
        const pool = await context.postgres();
        await requireNode(pool, id);
        const found = await listRevisions(pool, id);
        const columns = ['revision', 'createdAt', 'contentBytes', 'applied', 'errors', 'causes'];
        const rows = found.map((row) => ({ ...row, causes: row.causes.join(', ') }));
        context.print(found, objectsText(rows, columns, 'No revision was published yet.'));
      }),
    );

  node
    .command('errors')
    .description('Errors that a node reported, newest first')
    .argument('<id>', 'id of the node', nodeId)
    .addHelpText('after', '\nExample:\n  core node errors 1 --json')
    .action(
      run(async (context, _options, id: number) => {
        const pool = await context.postgres();
        await requireNode(pool, id);
        const found = await listErrors(pool, id);
        const columns = ['at', 'revision', 'code', 'message', 'details'];
        context.print(found, objectsText(found, columns, 'The node reported no error.'));
      }),
    );

  node
    .command('drift')
    .description('What each node runs, and which changes no worker has published yet')
    .option('--behind', 'only nodes that do not run their newest configuration')
    .addHelpText('after', '\nExample:\n  core node drift --behind')
    .action(
      run(async (context, options: { behind?: boolean }) => {
        const all = await listDrift(await context.postgres(), context.config.nodes);
        const found = options.behind === true ? all.filter(isBehind) : all;
        const none =
          options.behind === true ? 'Every node runs its newest configuration.' : 'No nodes.';
        const text = objectsText(found.map(driftRow), driftColumns, none);
        context.print(found, text + unpublishedLines(found));
      }),
    );

  node
    .command('rollback')
    .description('Return a node to the settings that it last applied, until they change again')
    .argument('<id>', 'id of the node', nodeId)
    .option(
      '--to <revision>',
      'the revision to return to (default: the last applied one)',
      revision,
    )
    .addHelpText(
      'after',
      `
Protocols, outbounds and rules are those of the earlier revision. Users have the access that they have
today. The node gets a new revision.

Example:
  core node rollback 1`,
    )
    .action(
      run(async (context, options: { to?: number }, id: number) => {
        context.print(await rollBackNode(await context.postgres(), id, options.to));
      }),
    );
}

const driftColumns = [
  'nodeId',
  'name',
  'status',
  'syncStatus',
  'revision',
  'applied',
  'reported',
  'behindBy',
  'behindSince',
  'rolledBackTo',
];

function driftRow(drift: NodeDrift): Record<string, unknown> {
  return { ...drift, applied: drift.appliedRevision, reported: drift.reportedRevision };
}

function isBehind(drift: NodeDrift): boolean {
  return drift.behindBy !== 0 || drift.unpublishedSince !== null;
}

function unpublishedLines(found: readonly NodeDrift[]): string {
  const waiting = found.filter((drift) => drift.unpublishedSince !== null);
  const rows = waiting.map((drift) => ({
    nodeId: drift.nodeId,
    'change not yet published since': drift.unpublishedSince,
    causes: drift.unpublishedCauses.join(', '),
    error: drift.publishError,
  }));
  if (rows.length === 0) return '';
  return `\n${objectsText(rows, Object.keys(rows[0] ?? {}), '')}`;
}
