import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { Lifecycle } from '../../../src/lifecycle.ts';
import type { Cell } from './cells.ts';
import { checkBytes } from './check-bytes.ts';
import { cutOff } from './cut-off.ts';
import { moveAll } from './move.ts';
import { isWhole, prepare } from './prepare.ts';
import type { Program } from './programs.ts';
import { startClients } from './start-clients.ts';
import { type Bench, type CellResult, fail, open } from './trial.ts';

/** Runs all cells with all clients against one version of Xray. */
export async function runVersion(
  given: Bench,
  xray: Program,
  cells: readonly Cell[],
): Promise<CellResult[]> {
  const lifecycle = new Lifecycle();
  const folder = path.join(given.folder, `xray-${xray.version}`);
  mkdirSync(folder);
  const bench = { ...given, folder };
  try {
    const { node, trials, witnesses } = await prepare(bench, { xray, cells, lifecycle });
    const all = [...trials, ...witnesses];
    const config = await node.pull((one) => isWhole(one, all));
    const refused = await node.refusedInbounds(config);
    for (const trial of all) {
      const reason = refused.get(`in-${trial.nodeProtocolId}`);
      if (reason !== undefined) fail(trial, 'a', reason);
    }
    await node.apply(config, new Set(refused.keys()));
    const running = await startClients(bench, all, lifecycle);
    await moveAll(open(trials), running);
    await checkBytes(bench, node, trials);
    await cutOff({ bench, node, trials, witnesses: open(witnesses) });
    return trials.map(({ cell, client, outcome }) => ({
      cell: cell.name,
      client,
      xray: xray.version,
      outcome,
    }));
  } finally {
    await lifecycle.close();
  }
}
