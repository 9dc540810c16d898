import type pg from 'pg';
import { Document, visit } from 'yaml';
import {
  type Harmless,
  outboundSettings,
  protocolSettings,
  routingRule,
} from '../settings/harmless.ts';
import { inTransaction } from '../stores/postgres.ts';
import { escapedYaml, printableLines } from '../text.ts';
import { withoutSecrets } from './secrets.ts';
import { byName, readFleet, type StoredNode } from './state.ts';

/**
 * The fleet as a file that `core apply` takes: every node that is not revoked. Without `secrets`
 * everything that is not known to be harmless is a marker at which apply keeps what is stored, so such a
 * file brings this Core back to what it was, but cannot build the fleet in an empty one.
 * @throws CoreError INVALID_ARGUMENT where two nodes have one name.
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
 * YAML that reads the same on a terminal: a text with characters that nobody sees is in double quotes, in
 * which they are escapes.
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
    protocols: node.protocols.map(({ protocol, port, settings }) => ({
      protocol,
      port,
      settings: shown(settings, protocolSettings),
    })),
    outbounds: node.outbounds.map(({ tag, protocol, settings }) => ({
      tag,
      protocol,
      settings: shown(settings, outboundSettings),
    })),
    rules: node.rules.map((rule) => shown(rule, routingRule)),
  };
}
