import type pg from 'pg';
import { Document, visit } from 'yaml';
import { listGroupNames } from '../groups/names.ts';
import {
  type Harmless,
  outboundOptions,
  outboundSettings,
  protocolSettings,
  routingRule,
  xraySettings,
} from '../settings/harmless.ts';
import { inTransaction } from '../stores/postgres.ts';
import { escapedYaml, printableLines } from '../text.ts';
import { withoutSecrets } from './secrets.ts';
import { byName, readFleet, type StoredNode } from './state.ts';

/**
 * The fleet as a file for `core apply`, with every node that is not revoked. Without `secrets` it
 * writes a marker for everything that is not known to be harmless, and `core apply` keeps the stored
 * value there. Such a file restores this Core's fleet, but cannot build it in an empty Core.
 * @throws CoreError INVALID_ARGUMENT if two nodes have the same name.
 */
export async function exportFleet(
  pool: pg.Pool,
  options: { secrets: boolean },
): Promise<{ text: string; nodes: number }> {
  const { fleet, groups } = await inTransaction(pool, async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
    return { fleet: await readFleet(client), groups: await listGroupNames(client) };
  });
  byName(fleet);
  const shown: Shown = options.secrets ? (settings) => settings : withoutSecrets;
  const nodes = fleet.map((node) => declaration(node, shown));
  const text = yamlText({ version: 1, groups, nodes });
  return { text, nodes: fleet.length };
}

/**
 * YAML that a terminal shows as it is. A text with invisible characters is in double quotes, which allow
 * escapes for them.
 */
function yamlText(value: object): string {
  const document = new Document(value, { aliasDuplicateObjects: false });
  visit(document, {
    Scalar(_key, scalar) {
      const { value: text } = scalar;
      if (typeof text === 'string' && printableLines(text) !== text) scalar.type = 'QUOTE_DOUBLE';
    },
  });
  return escapedYaml(document.toString({ lineWidth: 0 }));
}

type Shown = (settings: unknown, harmless: Harmless) => unknown;

function declaration(node: StoredNode, shown: Shown): object {
  const { name, region, host, ip } = node;
  return {
    name,
    ...(region === '' ? {} : { region }),
    ...(host === '' ? {} : { host }),
    ...(ip === '' ? {} : { ip }),
    protocols: node.protocols.map(({ name, protocol, port, groups, settings }) => ({
      name,
      protocol,
      port,
      groups,
      settings: shown(settings, protocolSettings),
    })),
    outbounds: node.outbounds.map(({ tag, protocol, settings, ...options }) => ({
      tag,
      protocol,
      settings: shown(settings, outboundSettings),
      ...(shown(options, outboundOptions) as object),
    })),
    rules: node.rules.map((rule) => shown(rule, routingRule)),
    xray: shown(node.xray, xraySettings),
  };
}
