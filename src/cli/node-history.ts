import type { Command } from 'commander';
import { listErrors } from '../nodes/reports.ts';
import { requireKnownNode } from '../nodes/require.ts';
import { listDrift, type NodeDrift } from '../publish/drift.ts';
import { listRevisions } from '../publish/revisions.ts';
import { rollBackNode } from '../publish/rollback.ts';
import { nodeId, revision } from './arguments.ts';
import type { Run } from './run.ts';
import { renderObjects } from './table.ts';

/** `core node revisions`, `errors`, `drift` and `rollback`. */
export function addNodeHistoryCommands(node: Command, run: Run): void {
  node
    .command('revisions')
    .description('What a node was to run, newest first: causes, and reports against each')
    .argument('<id>', 'id of the node', nodeId)
    .addHelpText('after', '\nExample:\n  core node revisions 1')
    .action(
      run(async (context, _options, id: number) => {
        const pool = await context.postgres();
        await requireKnownNode(pool, id);
        const found = await listRevisions(pool, id);
        const columns = ['revision', 'createdAt', 'contentBytes', 'applied', 'errors', 'causes'];
        const rows = found.map((row) => ({ ...row, causes: row.causes.join(', ') }));
        context.print(found, renderObjects(rows, columns, 'No revision was published yet.'));
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
        await requireKnownNode(pool, id);
        const found = await listErrors(pool, id);
        const columns = ['at', 'revision', 'code', 'message', 'details'];
        context.print(found, renderObjects(found, columns, 'The node reported no error.'));
      }),
    );

  node
    .command('drift')
    .description('Which node runs what, and which changes no worker has published yet')
    .option('--behind', 'only nodes that do not run what they should')
    .addHelpText('after', '\nExample:\n  core node drift --behind')
    .action(
      run(async (context, options: { behind?: boolean }) => {
        const all = await listDrift(await context.postgres(), context.config.nodes);
        const found = options.behind === true ? all.filter(isBehind) : all;
        const none = options.behind === true ? 'Every node runs what it should.' : 'No nodes.';
        const text = renderObjects(found.map(driftRow), driftColumns, none);
        context.print(found, text + unpublishedLines(found));
      }),
    );

  node
    .command('rollback')
    .description('Give a node the settings it last applied well, until the next change of them')
    .argument('<id>', 'id of the node', nodeId)
    .option('--to <revision>', 'the revision to go back to, in place of the last one', revision)
    .addHelpText(
      'after',
      `
Protocols, outbounds and rules are those of the earlier revision; who is let in stays as it is today.
The node gets a new revision.

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
  return `\n${renderObjects(rows, Object.keys(rows[0] ?? {}), '')}`;
}
