import type { Command } from 'commander';
import type { IssuedNode } from '../nodes/change.ts';
import { deleteNode, rekeyNode, revokeNode } from '../nodes/change.ts';
import { type NodeEffects, nodeEffects } from '../nodes/effects.ts';
import { nodeId } from './arguments.ts';
import { confirm, counted, countedLinks, yesOption } from './confirm.ts';
import type { CliContext } from './context.ts';
import type { Run } from './run.ts';
import { renderFields } from './table.ts';

interface EndOptions {
  yes?: boolean;
}

/** `core node rekey`, `revoke` and `delete`: what a node does not come back from by itself. */
export function addNodeEnds(node: Command, run: Run): void {
  ending(node, 'rekey', 'Issue a new code; the old key stops working at once').action(
    run(async (context, options: EndOptions, id: number) => {
      await confirmEnd(context, 'Issuing a new code for', id, options, (node) => [
        ...keyEffects(node),
        `leaves it without a configuration until it registers with the new code, with its ${countedLinks(node)}`,
      ]);
      printIssued(context, await rekeyNode(await context.postgres(), id, context.config.nodes));
    }),
  );

  ending(node, 'revoke', 'End a node for good: its key stops working at once').action(
    run(async (context, options: EndOptions, id: number) => {
      await confirmEnd(context, 'Revoking', id, options, (node) => [
        ...keyEffects(node),
        'ends it for good: it can never register again',
        `leaves its ${countedLinks(node)}, without a node that is kept up to date`,
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

/** The code is shown this once. */
export function printIssued(context: CliContext, issued: IssuedNode): void {
  const { nodeId, code, expiresAt } = issued;
  context.print({ nodeId, code }, renderFields({ nodeId, code, 'valid until': expiresAt }));
}
