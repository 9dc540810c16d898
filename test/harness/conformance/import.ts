import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { Lifecycle } from '../../../src/lifecycle.ts';
import { fixedPorts } from '../../support/free-port.ts';
import { makeUsers, type PanelUser } from '../../support/panel-files.ts';
import { checkBytes } from './check-bytes.ts';
import {
  type ImportedInbound,
  inboundsOf,
  type PanelName,
  type PlacedInbound,
  panelNames,
} from './import-panels.ts';
import { moveAll } from './move.ts';
import { type DrivenNode, startNode } from './node.ts';
import { allowLoopback, isWhole } from './prepare.ts';
import type { Program } from './programs.ts';
import { startClients } from './start-clients.ts';
import { type Bench, open, type Trial } from './trial.ts';

/** What came of one kind of link of one panel. */
export interface ImportResult {
  panel: PanelName;
  inbound: string;
  connected: number;
  links: number;
  /** The first link that failed, and why. */
  fault: string | undefined;
}

const usersCount = 7;

/**
 * Moves in from each panel: its file, `core import`, a node that runs Xray, and a client that knows nothing
 * but the link that the panel gave out. Its bytes must count for the subscription that was imported.
 */
export async function runImports(bench: Bench, xray: Program): Promise<ImportResult[]> {
  const results: ImportResult[] = [];
  for (const panel of panelNames) {
    const lifecycle = new Lifecycle();
    const folder = path.join(bench.folder, `import-${panel}`);
    mkdirSync(folder);
    const clients = bench.clients.filter(({ name }) => name === 'xray');
    try {
      results.push(...(await runPanel({ ...bench, folder, clients }, panel, xray, lifecycle)));
    } finally {
      await lifecycle.close();
    }
  }
  return results;
}

async function runPanel(
  bench: Bench,
  panel: PanelName,
  xray: Program,
  lifecycle: Lifecycle,
): Promise<ImportResult[]> {
  // Each panel has users of its own, since Core gives no credential to two subscriptions.
  const from = panelNames.indexOf(panel) * usersCount;
  const users = makeUsers(from + usersCount)
    .slice(from)
    .filter(({ status }) => status === 'active');
  const inbounds = inboundsOf(panel, bench.certificate, await bench.open('tls'));
  const ports = await fixedPorts(inbounds.length * (users.length + 1) + 1);
  const takePort = (): number => ports.pop() as number;
  const node = await addNode(bench, panel, xray, takePort());
  lifecycle.use('xray', () => node.stop());
  const placed = await addInbounds(bench, panel, { node, inbounds, takePort });
  await allowLoopback(bench.core, node.nodeId);
  const file = path.join(bench.folder, 'panel-file');
  placed[0]?.inbound.write(file, users, placed);
  const maps = panel === '3x-ui' ? placed.flatMap(mapOf) : [];
  await bench.core.command('import', panel, file, '--groups', panel, ...maps, '--yes');
  const trials = await trialsOf(bench, panel, { users, placed, takePort });
  const config = await node.pull((one) => isWhole(one, trials));
  await node.apply(config, new Set());
  const running = await startClients(bench, trials, lifecycle);
  await moveAll(trials, running);
  await checkBytes(bench, node, trials);
  return placed.map(({ inbound }) => resultOf(panel, inbound, trials));
}

function mapOf({ inbound, nodeProtocolId }: PlacedInbound): string[] {
  return ['--map', `${inbound.name}=${nodeProtocolId}`];
}

async function addNode(
  bench: Bench,
  panel: PanelName,
  xray: Program,
  apiPort: number,
): Promise<DrivenNode> {
  const name = `import-${panel}`;
  const { code } = await bench.core.command<{ code: string }>(
    ...['node', 'create', '--name', name, '--region', 'eu'],
  );
  return startNode({
    ...{ coreUrl: bench.core.url, code, name, xray, folder: bench.folder, apiPort },
    authorityFile: bench.certificate.authorityFile,
  });
}

/** The operator adds the panel's inbounds, in a group of their own. */
async function addInbounds(
  bench: Bench,
  panel: PanelName,
  of: { node: DrivenNode; inbounds: readonly ImportedInbound[]; takePort: () => number },
): Promise<PlacedInbound[]> {
  await bench.core.command('group', 'create', panel);
  const placed: PlacedInbound[] = [];
  for (const inbound of of.inbounds) {
    const port = of.takePort();
    const { nodeProtocolId } = await bench.core.command<{ nodeProtocolId: number }>(
      ...['protocol', 'add', '--node', String(of.node.nodeId), '--protocol', inbound.protocol],
      ...['--port', String(port), '--settings', JSON.stringify(inbound.settings)],
      ...['--groups', panel],
    );
    placed.push({ inbound, nodeProtocolId, port });
  }
  return placed;
}

/** One trial for each old link. It knows from Core only whose bytes they should be. */
async function trialsOf(
  bench: Bench,
  panel: PanelName,
  of: { users: readonly PanelUser[]; placed: readonly PlacedInbound[]; takePort: () => number },
): Promise<Trial[]> {
  const subscriptions = await bench.core.command<{ subscriptionId: number; externalId: string }[]>(
    ...['subscription', 'list'],
  );
  const trials: Trial[] = [];
  for (const user of of.users) {
    const imported = subscriptions.find((one) => one.externalId === `${panel}:${user.name}`);
    if (imported === undefined) throw new Error(`${panel}: ${user.name} was not imported`);
    const { subscriptionId } = imported;
    const links = await bench.core.command<{ uuid: string; nodeProtocolId: number }[]>(
      ...['link', 'list', '--subscription', String(subscriptionId)],
    );
    for (const { inbound, nodeProtocolId, port } of of.placed) {
      const link = links.find((one) => one.nodeProtocolId === nodeProtocolId);
      if (link === undefined) throw new Error(`${panel}: ${user.name} has no ${inbound.name}`);
      const tag = `${panel}-${inbound.name}-${user.name}`;
      const { isInnerTls, protocol, settings } = inbound;
      trials.push({
        ...{ client: 'xray', nodeProtocolId, subscriptionId, uuid: link.uuid },
        cell: { name: tag, protocol, settings, isInnerTls },
        link: { tag, uri: inbound.link(user, port), socksPort: of.takePort() },
        door: await bench.open(isInnerTls ? 'tls' : 'plain'),
        seed: trials.length * 16,
        outcome: { kind: 'ok' },
      });
    }
  }
  return trials;
}

function resultOf(
  panel: PanelName,
  inbound: ImportedInbound,
  trials: readonly Trial[],
): ImportResult {
  const own = trials.filter(({ cell }) => cell.name.startsWith(`${panel}-${inbound.name}-`));
  const failed = own.find(({ outcome }) => outcome.kind === 'failed');
  const fault =
    failed?.outcome.kind === 'failed'
      ? `${failed.cell.name}, step ${failed.outcome.letter}: ${failed.outcome.reason}`
      : undefined;
  const connected = open(own).length;
  return { panel, inbound: inbound.name, connected, links: own.length, fault };
}
