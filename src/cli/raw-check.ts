import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { type XrayVerdict, xrayVerdict } from '../processes/xray-verdict.ts';
import { hasRaw } from '../publish/raw-parts.ts';
import { readNodesInTransaction } from '../publish/read-rows.ts';
import { renderNodeConfig } from '../render/render.ts';
import { parseVersion } from '../render/xray-versions.ts';
import type { BeforeCommit } from '../settings/before-commit.ts';
import type { CliContext } from './context.ts';

/** Nodes that one command tests. A fleet file may change ten thousand, and all of them wait meanwhile. */
const testedMax = 16;

/**
 * Lets a real Xray, if one is at hand, judge the configuration of a node with `raw` before a change of it is
 * committed. If it is of the version that the node reports, a refusal is an error, and nothing changes. Another
 * version may judge differently, so its refusal is a note.
 */
export function rawCheck(context: CliContext): BeforeCommit {
  let tested = 0;
  let isMissing = false;
  return async (client, nodeId) => {
    if (isMissing) return;
    const node = await readRaw(client, nodeId);
    if (node === undefined) return;
    tested += 1;
    if (tested === testedMax + 1) {
      context.note(`Xray tested ${testedMax} nodes with raw; core node test ID tests the others\n`);
    }
    if (tested > testedMax) return;
    try {
      judge(context, nodeId, node.reported, await xrayVerdict(programOf(context), node.xray));
    } catch (thrown) {
      if (!(thrown instanceof CoreError) || thrown.code !== 'XRAY_UNUSABLE') throw thrown;
      isMissing = true;
      // Nobody asked for a test by setting CORE_XRAY, and most machines have no Xray.
      if (context.config.nodes.xray !== undefined)
        context.note(`raw is not tested: ${thrown.message}\n`);
    }
  };
}

/** The Xray that commands test with. */
export function programOf(context: CliContext): string {
  return context.config.nodes.xray ?? 'xray';
}

async function readRaw(
  client: pg.PoolClient,
  nodeId: number,
): Promise<{ xray: object; reported: string | null } | undefined> {
  const rows = (await readNodesInTransaction(client, [nodeId])).get(nodeId)?.rows;
  if (rows === undefined || !hasRaw(rows)) return undefined;
  const { xray } = renderNodeConfig(rows).services;
  return xray && { xray, reported: rows.node.xrayVersion ?? null };
}

function judge(
  context: CliContext,
  nodeId: number,
  reported: string | null,
  verdict: XrayVerdict,
): void {
  if (verdict.outcome === 'taken') return;
  const { outcome, version, reason } = verdict;
  if (outcome === 'needs geo files') {
    context.note(`Xray ${version} cannot test the configuration of node ${nodeId}: ${reason}\n`);
    return;
  }
  const message = `Xray ${version} refuses the configuration of node ${nodeId}: ${reason}`;
  if (parseVersion(reported)?.join('.') === version)
    throw new CoreError('INVALID_ARGUMENT', message);
  context.note(`Warning: ${message}. The node reports ${reported ?? 'no version'}\n`);
}
