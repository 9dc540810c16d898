import type { Command } from 'commander';
import { toCoreError } from '../errors.ts';
import { requireNode } from '../nodes/lock-node.ts';
import {
  forgetNumberedStream,
  listNumberedStreams,
  type NumberedStream,
} from '../spool/numbered.ts';
import { nodeId, uuid } from './arguments.ts';
import { confirm, counted, yesOption } from './confirm.ts';
import type { CliContext, Run } from './context.ts';
import { objectsText } from './table.ts';

/** `core node posts` */
export function addNodePostsCommand(node: Command, run: Run): void {
  node
    .command('posts')
    .description('Numbered posts of a node: how far they have come, and which are missing')
    .argument('<id>', 'id of the node', nodeId)
    .option('--forget <stream>', 'forget a stream, whose agent is gone', uuid)
    .option(...yesOption)
    .addHelpText(
      'after',
      `
An agent that numbers its posts has one stream, which it keeps over restarts. A post that is missing has
a lower number than one that has come. The agent still holds it, or lost it.

Examples:
  core node posts 1
  core node posts 1 --forget 0c9f8ad4-6a7e-4a64-8f0e-5f2a6b1d9e10`,
    )
    .action(
      run(async (context, options: { forget?: string; yes?: boolean }, id: number) => {
        await requireNode(await context.postgres(), id);
        if (options.forget !== undefined) return forget(context, id, options.forget, options.yes);
        const streams = await readStreams(context, id);
        const rows = streams.map((stream) => ({ ...stream, gaps: gapsText(stream) }));
        const columns = ['stream', 'greatest', 'missing', 'gaps', 'lastPostAfter'];
        context.print(streams, objectsText(rows, columns, 'The node has sent no numbered post.'));
      }),
    );
}

async function forget(
  context: CliContext,
  nodeId: number,
  stream: string,
  yes: boolean | undefined,
): Promise<void> {
  const redis = await context.redis();
  const { redisPrefix } = context.config.stores;
  const what = `Forgetting the stream ${stream} of node ${nodeId}`;
  const effects = ['counts a post of it again if its agent still repeats one'];
  await confirm(context, { what, effects, answer: 'yes', yes });
  await forgetNumberedStream(redis, redisPrefix, nodeId, stream);
  context.print({ nodeId, stream, status: 'forgotten' });
}

/**
 * How many posts of a node have not come though later ones have, and which, in words. Null if Redis is away:
 * what else is known of the node must still be shown.
 */
export async function missingPosts(
  context: CliContext,
  nodeId: number,
): Promise<{ count: number; text: string | null } | null> {
  let streams: NumberedStream[];
  try {
    streams = await readStreams(context, nodeId);
  } catch (thrown) {
    context.note(`Whether posts are missing is not known: ${toCoreError(thrown).message}\n`);
    return null;
  }
  const missing = streams.filter((stream) => stream.missing > 0);
  const count = missing.reduce((sum, stream) => sum + stream.missing, 0);
  const texts = missing.map((one) => `${gapsText(one)} of stream ${one.stream}`);
  return { count, text: texts.length === 0 ? null : texts.join('; ') };
}

async function readStreams(context: CliContext, nodeId: number): Promise<NumberedStream[]> {
  return listNumberedStreams(await context.redis(), context.config.stores.redisPrefix, nodeId);
}

const gapsShownMax = 5;

function gapsText({ gaps }: NumberedStream): string {
  const shown = gaps
    .slice(0, gapsShownMax)
    .map(({ first, last }) => (first === last ? `${first}` : `${first} to ${last}`));
  const rest = gaps.length - shown.length;
  return rest > 0 ? `${shown.join(', ')} and ${counted(rest, 'more gap')}` : shown.join(', ');
}
