import type { Command } from 'commander';
import { CoreError } from '../errors.ts';
import { requireNode } from '../nodes/lock-node.ts';
import type { FaultyRevision, NodeState } from '../nodes/node-state.ts';
import { listErrors } from '../nodes/reports.ts';
import { listDrift, type NodeDrift } from '../publish/drift.ts';
import type { RawPart } from '../publish/raw-parts.ts';
import { listRevisions } from '../publish/revisions.ts';
import { endRollback, rollBackNode } from '../publish/rollback.ts';
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
        context.print(found, text + unpublishedLines(found) + alarmLines(found) + rawLines(found));
      }),
    );

  node
    .command('rollback')
    .description('Return a node to the settings that it last applied, or end such a rollback')
    .argument('<id>', 'id of the node', nodeId)
    .option(
      '--to <revision>',
      'the revision to return to (default: the last applied one)',
      revision,
    )
    .option('--end', 'give the node its stored settings again')
    .addHelpText(
      'after',
      `
Protocols, outbounds, rules and settings of Xray are those of the earlier revision. Users have the access
that they have today, and a protocol that was removed since does not come back. The node gets a new
revision. The rollback ends with the next change of the node's settings, or with --end.

Core rolls back a node by itself if the node refuses its newest settings. core node drift says why. If
the fault was on the node, --end lets it try the same settings again.

Examples:
  core node rollback 1
  core node rollback 1 --end`,
    )
    .action(
      run(async (context, options: { to?: number; end?: boolean }, id: number) => {
        const pool = await context.postgres();
        if (options.end !== true) {
          context.print(await rollBackNode(pool, id, options.to));
        } else if (options.to === undefined) context.print(await endRollback(pool, id));
        else throw new CoreError('INVALID_ARGUMENT', 'Give either --to or --end');
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

/** What an operator must act on: nodes that Core rolled back, and versions that cannot do their work. */
function alarmLines(found: readonly NodeDrift[]): string {
  const rows = found.flatMap((drift) => {
    const { nodeId, faulty, leftOut, versionFaults, versionsInTurn } = drift;
    const turns =
      versionsInTurn === null ? [] : [versionsInTurnText(drift.versions, versionsInTurn)];
    const faults = versionFaults.map(
      ({ nodeProtocolId, message }) => `protocol ${nodeProtocolId}: ${message}`,
    );
    const gone = leftOut.map(
      ({ nodeProtocolId, protocol, port }) =>
        `protocol ${nodeProtocolId} (${protocol} on port ${port}) was removed since revision ${drift.rolledBackTo}, so the rollback leaves it out`,
    );
    const rolledBack = faulty === null ? [] : [faultyText(nodeId, drift.rolledBackTo, faulty)];
    return [...rolledBack, ...gone, ...turns, ...faults].map((alarm) => ({ nodeId, alarm }));
  });
  return rows.length === 0 ? '' : `\n${objectsText(rows, ['nodeId', 'alarm'], '')}`;
}

/** Why a node is rendered for another version than its newest heartbeat says. */
export function versionsInTurnText(
  { xray }: Pick<NodeState['versions'], 'xray'>,
  { renderedFor, changes }: NonNullable<NodeState['versionsInTurn']>,
): string {
  return `it reports several versions of Xray in turn (${changes} changes, now ${xray ?? 'none'}), as two agents with one key do: Core renders for ${renderedFor ?? 'none'} until the version stays the same for an hour`;
}

/** Why Core rolled a node back, and how to end that. */
export function faultyText(
  nodeId: number,
  rolledBackTo: number | null,
  { revision, message, code, refusesLastGood }: FaultyRevision,
): string {
  const said = [code, message].filter((part) => part !== null && part !== '').join(': ');
  const now = refusesLastGood
    ? `and it refuses those of revision ${rolledBackTo}, too`
    : `so Core rolled it back to those of revision ${rolledBackTo}`;
  return `it refused the settings of revision ${revision} (${said}), ${now}; correct them, or run core node rollback ${nodeId} --end to try them again`;
}

function rawLines(found: readonly NodeDrift[]): string {
  const rows = found
    .filter(({ raw }) => raw.length > 0)
    .map(({ nodeId, raw }) => ({ nodeId, 'raw JSON, which only Xray checks': rawText(raw) }));
  return rows.length === 0 ? '' : `\n${objectsText(rows, Object.keys(rows[0] ?? {}), '')}`;
}

/** Like `protocol 7 (VLESS): streamSettings; root: log`; null if nothing is raw. */
export function rawText(raw: readonly RawPart[]): string | null {
  return raw.map(({ part, fields }) => `${part}: ${fields.join(', ')}`).join('; ') || null;
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
