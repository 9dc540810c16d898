import { isDeepStrictEqual } from 'node:util';
import type pg from 'pg';
import { Document, visit } from 'yaml';
import {
  type Harmless,
  outboundOptions,
  outboundSettings,
  protocolSettings,
  routingRule,
} from '../settings/harmless.ts';
import { inTransaction } from '../stores/postgres.ts';
import { escapedYaml, printableLines } from '../text.ts';
import { defaultGroup } from './groups.ts';
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
  const fleet = await inTransaction(pool, async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY');
    return readFleet(client);
  });
  byName(fleet);
  const shown: Shown = options.secrets ? (settings) => settings : withoutSecrets;
  const text = yamlText({ version: 1, nodes: fleet.map((node) => declaration(node, shown)) });
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
      ...(isDeepStrictEqual(groups, [defaultGroup]) ? {} : { groups }),
      settings: shown(settings, protocolSettings),
    })),
    outbounds: node.outbounds.map(({ tag, protocol, settings, ...options }) => ({
      tag,
      protocol,
      settings: shown(settings, outboundSettings),
      ...(shown(options, outboundOptions) as object),
    })),
    rules: node.rules.map((rule) => shown(rule, routingRule)),
  };
}
