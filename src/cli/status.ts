import type { Command } from 'commander';
import { countUnsettled, readBacklog, type StreamBacklog } from '../ingest/backlog.ts';
import { countNodes } from '../nodes/count.ts';
import { countUnpublished } from '../nodes/drift.ts';
import { type NodeStatus, nodeStatuses } from '../nodes/node-state.ts';
import type { CliContext } from './context.ts';
import type { Run } from './run.ts';
import { bytesText, renderFields, renderTable } from './table.ts';

/** `core status` */
export function addStatusCommand(program: Command, run: Run): void {
  program
    .command('status')
    .description('Nodes by state, backlog, lag, and segments that are not settled')
    .addHelpText('after', '\nExample:\n  core status --json')
    .action(
      run(async (context) => {
        const status = await readStatus(context);
        context.print(status, renderStatus(status));
      }),
    );
}

interface Status {
  nodes: Record<NodeStatus | 'total', number>;
  backlog: { bytes: number; entries: number; streams: StreamBacklog[] };
  /** Age of the oldest row that is accepted and not settled. */
  lagSeconds: number;
  /** Nodes with a change that no worker has published yet, and since when the first of them waits. */
  unpublished: { nodes: number; since: Date | null };
  segments: { count: number; rows: number; oldestSeconds: number };
}

async function readStatus(context: CliContext): Promise<Status> {
  const pool = await context.postgres();
  const redis = await context.redis();
  const nodes = await countNodes(pool, context.config.nodes);
  const streams = await readBacklog(pool, redis, context.config.stores.redisPrefix);
  return {
    nodes: { ...nodes, total: Object.values(nodes).reduce((sum, count) => sum + count, 0) },
    backlog: {
      bytes: streams.reduce((sum, stream) => sum + stream.bytes, 0),
      entries: streams.reduce((sum, stream) => sum + stream.entries, 0),
      streams,
    },
    lagSeconds: Math.max(0, ...streams.map((stream) => stream.lagSeconds)),
    unpublished: await countUnpublished(pool),
    segments: await countUnsettled(pool),
  };
}

function renderStatus(status: Status): string {
  const { nodes, backlog, segments } = status;
  const states = nodeStatuses.map((state) => `${nodes[state]} ${state}`).join(', ');
  const summary = renderFields({
    nodes: `${nodes.total} (${states})`,
    backlog: `${bytesText(backlog.bytes)} in ${backlog.entries} entries`,
    lag: `${status.lagSeconds} s`,
    'not published': unpublishedText(status.unpublished),
    'not settled': `${segments.count} segments, ${segments.rows} rows, oldest ${segments.oldestSeconds} s`,
  });
  if (backlog.streams.length === 0) return summary;
  const table = renderTable(
    ['stream', 'bytes', 'entries', 'lag s', 'segments'],
    backlog.streams.map((s) => [s.stream, s.bytes, s.entries, s.lagSeconds, s.segments]),
  );
  return `${summary}\n${table}`;
}

/** A worker publishes within about a second, so a longer wait means that none runs. */
function unpublishedText({ nodes, since }: Status['unpublished']): string {
  if (nodes === 0 || since === null) return '0 nodes';
  return `${nodes} nodes, change not yet published since ${since.toISOString()}`;
}
