import type { Command } from 'commander';
import type pg from 'pg';
import { noSuchNode } from '../nodes/lock-node.ts';
import { type XrayVerdict, xrayVerdict } from '../processes/xray-verdict.ts';
import { readNodeRows } from '../publish/read-rows.ts';
import type { NodeRows } from '../render/node-rows.ts';
import { renderNodeConfig } from '../render/render.ts';
import { parseVersion } from '../render/xray-versions.ts';
import { nodeId } from './arguments.ts';
import type { CliContext, Run } from './context.ts';
import { programOf } from './raw-check.ts';
import { fieldsText } from './table.ts';

/** `core status` exits with the same if something does not run. */
const refusedExitCode = 3;

/** `core node test`. */
export function addNodeTest(node: Command, run: Run): void {
  node
    .command('test')
    .description(
      'Ask a real Xray on this machine whether it takes the newest configuration of a node',
    )
    .argument('<id>', 'id of the node', nodeId)
    .option('--xray <path>', 'the Xray (default: CORE_XRAY, or xray on the PATH)')
    .addHelpText(
      'after',
      `
It renders the settings that Core has now, also those that no worker has published yet, and runs
xray run -test, which starts nothing and opens no port. Files of certificates are on the node, so Xray gets
one of its own in the place of each. It finds geo files by XRAY_LOCATION_ASSET, or beside the program.

Exits with 3 if Xray refuses the configuration, or lacks a geo file to tell.

Examples:
  core node test 1
  core node test 1 --xray /opt/xray-26.7.28/xray`,
    )
    .action(
      run(async (context, options: { xray?: string }, id: number) => {
        const tested = await testNode(
          context,
          await readRows(await context.postgres(), id),
          options.xray,
        );
        context.print({ nodeId: id, ...tested }, fieldsText({ nodeId: id, ...tested }));
        const isFine = tested.outcome === 'taken' || tested.outcome === 'no Xray';
        return isFine ? undefined : { exitCode: refusedExitCode };
      }),
    );
}

type Tested = (XrayVerdict | { outcome: 'no Xray' }) & { note?: string };

async function testNode(
  context: CliContext,
  rows: NodeRows,
  given: string | undefined,
): Promise<Tested> {
  const { xray } = renderNodeConfig(rows).services;
  if (xray === undefined) {
    return { outcome: 'no Xray', note: 'The node has no inbound that Xray serves' };
  }
  const verdict = await xrayVerdict(given ?? programOf(context), xray);
  const reported = rows.node.xrayVersion;
  if (
    reported === undefined ||
    reported === null ||
    parseVersion(reported)?.join('.') === verdict.version
  ) {
    return verdict;
  }
  return {
    ...verdict,
    note: `The node reports ${reported}: another version may say another thing`,
  };
}

async function readRows(pool: pg.Pool, id: number): Promise<NodeRows> {
  const client = await pool.connect();
  try {
    const rows = await readNodeRows(client, id);
    if (rows === undefined) throw noSuchNode(id);
    return rows;
  } finally {
    client.release();
  }
}
