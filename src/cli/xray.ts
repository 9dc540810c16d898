import type { Command } from 'commander';
import { xraySettings } from '../settings/harmless.ts';
import { readXraySettings, setXraySettings } from '../settings/xray-settings.ts';
import { nodeId, settings } from './arguments.ts';
import type { Run } from './context.ts';
import { rawCheck } from './raw-check.ts';
import { fieldsText, settingsToShow } from './table.ts';

/** `core xray …` */
export function addXrayCommands(program: Command, run: Run): void {
  const xray = program
    .command('xray')
    .description(
      "What a node's Xray has beside protocols, outbounds and rules: DNS, balancers, raw",
    );

  xray
    .command('show')
    .description('Settings of a node')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .option('--secrets', 'with raw, and everything else that is not known to be harmless')
    .addHelpText('after', '\nExample:\n  core xray show --node 1 --secrets --json')
    .action(
      run(async (context, options: { node: number; secrets?: boolean }) => {
        const found = await readXraySettings(await context.postgres(), options.node);
        const shown = settingsToShow(found, xraySettings, options) as Record<string, unknown>;
        const text = Object.keys(shown).length === 0 ? 'The node has none.\n' : fieldsText(shown);
        context.print(shown, text);
      }),
    );

  xray
    .command('set')
    .description('Replace the settings of a node; what is left out is removed')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .requiredOption('--settings <json>', 'all settings: a JSON object or @file', settings)
    .addHelpText('after', settingsHelp)
    .action(
      run(async (context, options: { node: number; settings: Record<string, unknown> }) => {
        await setXraySettings(
          await context.postgres(),
          options.node,
          options.settings,
          rawCheck(context),
        );
        context.print({ nodeId: options.node, settings: Object.keys(options.settings).join(', ') });
      }),
    );
}

const settingsHelp = `
Settings (all optional; the fields in them are those of Xray):
  domainStrategy     AsIs, IPIfNonMatch or IPOnDemand
  dns                servers, hosts, queryStrategy, …
  balancers          [{ tag, selector, strategy, fallbackTag }]; a rule names one by balancerTag
  observatory        measures outbounds for leastPing and leastLoad; or burstObservatory
  raw                merged into the root of the configuration; a real Xray checks it, if one
                     is at hand (core node test --help)

Examples:
  core xray set --node 1 --settings '{"dns":{"servers":["1.1.1.1"]}}'
  core xray set --node 1 --settings @xray.json

docs/routing.md has the rest.`;
