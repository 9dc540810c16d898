import type { Command } from 'commander';
import { routingRule } from '../settings/harmless.ts';
import { addRule, listRules, moveRule, removeRule } from '../settings/rules.ts';
import { id, nodeId, position, settings } from './arguments.ts';
import type { Run } from './context.ts';
import { objectsText, settingsToShow } from './table.ts';

/** `core rule …` */
export function addRuleCommands(program: Command, run: Run): void {
  const rule = program
    .command('rule')
    .description(
      'Routing rules of a node: which outbound takes which traffic; the first match wins',
    );

  rule
    .command('add')
    .description('Add a routing rule')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .requiredOption('--rule <json>', "Xray's RuleObject: a JSON object or @file", settings)
    .option('--at <position>', 'its place, from 1 (default: the last)', position)
    .addHelpText(
      'after',
      `
Example:
  core rule add --node 1 --rule '{"ip":["geoip:private"],"outboundTag":"block"}'`,
    )
    .action(
      run(async (context, options: AddOptions) => {
        const added = { nodeId: options.node, rule: options.rule, position: options.at };
        context.print(await addRule(await context.postgres(), added));
      }),
    );

  rule
    .command('list')
    .description('Rules of a node in their order')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .option(
      '--secrets',
      'with the UUIDs of links, and everything else that is not known to be harmless',
    )
    .addHelpText('after', '\nExample:\n  core rule list --node 1')
    .action(
      run(async (context, options: { node: number; secrets?: boolean }) => {
        const listed = await listRules(await context.postgres(), options.node);
        const found = listed.map((one) => ({
          ...one,
          rule: settingsToShow(one.rule, routingRule, options),
        }));
        const columns = ['position', 'ruleId', 'rule'];
        context.print(found, objectsText(found, columns, 'The node has no rules.'));
      }),
    );

  rule
    .command('move')
    .description('Move a rule to another place')
    .argument('<id>', 'id of the rule', id)
    .requiredOption('--to <position>', 'its new place, from 1', position)
    .addHelpText('after', '\nExample:\n  core rule move 7 --to 1')
    .action(
      run(async (context, options: { to: number }, ruleId: number) => {
        const moved = await moveRule(await context.postgres(), ruleId, options.to);
        context.print({ ruleId, ...moved });
      }),
    );

  rule
    .command('remove')
    .description('Remove a rule')
    .argument('<id>', 'id of the rule', id)
    .addHelpText('after', '\nExample:\n  core rule remove 7')
    .action(
      run(async (context, _options, ruleId: number) => {
        const { nodeId } = await removeRule(await context.postgres(), ruleId);
        context.print({ ruleId, nodeId, status: 'removed' });
      }),
    );
}

interface AddOptions {
  node: number;
  rule: Record<string, unknown>;
  at?: number;
}
