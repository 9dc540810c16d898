import { type Command, InvalidArgumentError } from 'commander';
import { countNodes, type NodeStatus, nodeStatuses } from '../nodes/node-state.ts';
import { roles } from '../presence/process-records.ts';
import { countUnpublished } from '../publish/drift.ts';
import { countFaulty } from '../publish/faulty.ts';
import { countUnsettled, readBacklog, type StreamBacklog } from '../spool/backlog.ts';
import type { CliContext, Run } from './context.ts';
import { findRunning, missingParts, type Part, parts, type RunningParts } from './running.ts';
import { bytesText, fieldsText, tableText } from './table.ts';

/** Exit code if a needed part does not run. A failure of the command has 1. */
const missingExitCode = 3;

/** `core status` */
export function addStatusCommand(program: Command, run: Run): void {
  program
    .command('status')
    .description('What runs, nodes by state, backlog, lag, and segments that are not settled')
    .option(
      '--need <parts>',
      `the parts that must run, separated by commas: ${parts.join(', ')} (all of them)`,
      neededParts,
      [...parts],
    )
    .addHelpText(
      'after',
      `
Exits with ${missingExitCode} if a part that must run does not.

Examples:
  core status --json
  core status --need worker,postgres,redis`,
    )
    .action(
      run(async (context, { need }: { need: Part[] }) => {
        const status = await readStatus(context);
        context.print(status, statusText(status));
        const isMissing = missingParts(status.running).some((part) => need.includes(part));
        return isMissing ? { exitCode: missingExitCode } : undefined;
      }),
    );
}

function neededParts(given: string): Part[] {
  return given.split(',').map((name) => {
    const part = parts.find((one) => one === name.trim());
    if (part !== undefined) return part;
    throw new InvalidArgumentError(`There is no part ${name}: give some of ${parts.join(', ')}`);
  });
}

/** Values from a store that is away are null. */
interface Status {
  running: RunningParts;
  nodes: Record<NodeStatus | 'total', number> | null;
  backlog: { bytes: number; entries: number; streams: StreamBacklog[] } | null;
  /** Age of the oldest row that is not settled. */
  lagSeconds: number | null;
  /** Nodes with a change that no worker has published yet, and since when the first one waits. */
  unpublished: { nodes: number; since: Date | null } | null;
  /** Nodes that Core rolled back by itself, because they refused their newest settings. */
  rolledBack: { nodes: number; since: Date | null } | null;
  segments: { count: number; rows: number; oldestSeconds: number } | null;
}

async function readStatus(context: CliContext): Promise<Status> {
  const { pool, redis, running } = await findRunning(context);
  const nodes = pool === undefined ? null : await countNodes(pool, context.config.nodes);
  const { redisPrefix } = context.config.stores;
  const isKnown = pool !== undefined && redis !== undefined;
  const streams = isKnown ? await readBacklog(pool, redis, redisPrefix) : null;
  return {
    running,
    nodes: nodes && {
      ...nodes,
      total: Object.values(nodes).reduce((sum, count) => sum + count, 0),
    },
    backlog: streams && {
      bytes: streams.reduce((sum, stream) => sum + stream.bytes, 0),
      entries: streams.reduce((sum, stream) => sum + stream.entries, 0),
      streams,
    },
    lagSeconds: streams && Math.max(0, ...streams.map((stream) => stream.lagSeconds)),
    unpublished: pool === undefined ? null : await countUnpublished(pool),
    rolledBack: pool === undefined ? null : await countFaulty(pool),
    segments: pool === undefined ? null : await countUnsettled(pool),
  };
}

function statusText(status: Status): string {
  const { running, nodes, backlog, lagSeconds, segments } = status;
  const missing = missingParts(running);
  const states = nodes && nodeStatuses.map((state) => `${nodes[state]} ${state}`).join(', ');
  const summary = fieldsText({
    running: parts.filter((part) => !missing.includes(part)).join(', ') || 'nothing',
    'not running': missing.map((part) => missingText(running, part)).join('; ') || 'nothing',
    nodes: nodes && `${nodes.total} (${states})`,
    backlog: backlog && `${bytesText(backlog.bytes)} in ${backlog.entries} stream entries`,
    lag: lagSeconds === null ? null : `${lagSeconds} s`,
    'not published': unpublishedText(status.unpublished),
    'rolled back by Core': rolledBackText(status.rolledBack),
    'not settled':
      segments &&
      `${segments.count} segments, ${segments.rows} rows, oldest ${segments.oldestSeconds} s`,
  });
  const processes = roles.flatMap((role) =>
    (running[role] ?? []).map((one) => [role, one.host, one.pid, one.state, one.since]),
  );
  const tables = [
    ['process', 'host', 'pid', 'state', 'since'],
    ['stream', 'bytes', 'stream entries', 'lag s', 'segments'],
  ] as const;
  const streams = (backlog?.streams ?? []).map((s) => [
    s.stream,
    s.bytes,
    s.entries,
    s.lagSeconds,
    s.segments,
  ]);
  const filled = [processes, streams].flatMap((rows, index) =>
    rows.length === 0 ? [] : [`\n${tableText(tables[index] ?? [], rows)}`],
  );
  return `${summary}${filled.join('')}`;
}

/** Names a part that does not run, and since when, if that is known. */
function missingText(running: RunningParts, part: Part): string {
  if (part === 'api' || part === 'worker') {
    const processes = running[part];
    if (processes === null) return `${part} (unknown: Postgres and Redis are away)`;
    const last = processes
      .map(({ since }) => since)
      .sort()
      .at(-1);
    return last === undefined ? `${part} (never seen)` : `${part} since ${last}`;
  }
  const { since, reason } = running[part];
  return `${part}${since === null ? '' : ` since ${since}`} (${reason})`;
}

/** These nodes refused their newest settings. */
function rolledBackText(rolledBack: Status['rolledBack']): string | null {
  if (rolledBack === null) return null;
  const { nodes, since } = rolledBack;
  if (nodes === 0 || since === null) return '0 nodes';
  return `${nodes} nodes, the first one since ${since.toISOString()}; core node drift says why`;
}

/** A worker publishes within about a second, so a longer wait means that none runs. */
function unpublishedText(unpublished: Status['unpublished']): string | null {
  if (unpublished === null) return null;
  const { nodes, since } = unpublished;
  if (nodes === 0 || since === null) return '0 nodes';
  return `${nodes} nodes, change not yet published since ${since.toISOString()}`;
}
