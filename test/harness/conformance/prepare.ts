import type { NodeConfig } from '../../../src/contract/node-config.ts';
import type { Lifecycle } from '../../../src/lifecycle.ts';
import { fixedPorts } from '../../support/free-port.ts';
import { type Cell, type ClientName, missingIn } from './cells.ts';
import { serverName } from './certificate.ts';
import type { ConformanceCore } from './core.ts';
import { type Front, startFront } from './front.ts';
import { compareVersions } from './gaps.ts';
import { type DrivenNode, startNode } from './node.ts';
import type { Program } from './programs.ts';
import { type Bench, fail, type Trial } from './trial.ts';

/** A cell as Core has it, or why Core refuses it. */
type Added = { nodeProtocolId: number } | { refusal: string };

/** A node with all cells, and for each client a user whose links it uses. One more user stays to the end. */
export async function prepare(
  bench: Bench,
  { xray, cells, lifecycle }: { xray: Program; cells: readonly Cell[]; lifecycle: Lifecycle },
): Promise<{ node: DrivenNode; trials: Trial[]; witnesses: Trial[] }> {
  const { command } = bench.core;
  const name = `xray-${xray.version}`;
  const { code } = await command<{ code: string }>(
    ...['node', 'create', '--name', name, '--region', 'eu'],
  );
  const ports = await fixedPorts(cells.length * (bench.clients.length + 3) + 1);
  const takePort = (): number => ports.pop() as number;
  const node = await startNode({
    ...{ coreUrl: bench.core.url, code, name, xray, folder: bench.folder, apiPort: takePort() },
    authorityFile: bench.certificate.authorityFile,
  });
  lifecycle.use('xray', () => node.stop());
  const added = await addCells(bench, { cells, nodeId: node.nodeId, takePort, lifecycle });
  await allowLoopback(bench.core, node.nodeId);
  const trialsOf = (client: ClientName, who: string): Promise<Trial[]> =>
    trialsFor(bench, { client, who, version: xray.version, cells, added, takePort });
  const trials: Trial[] = [];
  for (const { name } of bench.clients) trials.push(...(await trialsOf(name, name)));
  return { node, trials, witnesses: await trialsOf('xray', 'witness') };
}

/** The links of one user, a trial for each cell. A cell with a credential has a subscription of its own. */
async function trialsFor(
  bench: Bench,
  of: {
    client: ClientName;
    who: string;
    version: string;
    cells: readonly Cell[];
    added: ReadonlyMap<Cell, Added>;
    takePort: () => number;
  },
): Promise<Trial[]> {
  const { client, who, cells, added } = of;
  const { core } = bench;
  const user = await core.command<{ userId: number }>(
    ...['user', 'create', '--name', `${who} ${of.version}`],
  );
  const usual = await subscribe(core, user.userId);
  const trials: Trial[] = [];
  for (const [index, cell] of cells.entries()) {
    const links =
      cell.credential === undefined
        ? usual
        : await subscribe(core, user.userId, cell.credential(`${who} ${of.version}`));
    const reason = missingIn(client, cell);
    const place = added.get(cell) as Added;
    const trial: Trial = {
      cell,
      client,
      nodeProtocolId: 0,
      subscriptionId: links.subscriptionId,
      uuid: '',
      link: { tag: `${who}-${cell.name}`, uri: '', socksPort: of.takePort() },
      door: await bench.open(cell.isInnerTls ? 'tls' : 'plain'),
      seed: index * 16,
      outcome: reason === undefined ? { kind: 'ok' } : { kind: 'missing', reason },
    };
    trials.push(trial);
    if ('refusal' in place) fail(trial, 'a', place.refusal);
    else if (isLeftOut(cell, of.version)) fail(trial, 'a', 'Core leaves it out on this Xray');
    else {
      const link = await links.to(place.nodeProtocolId);
      trial.nodeProtocolId = place.nodeProtocolId;
      trial.uuid = link.uuid;
      trial.link.uri = (cell.isOtherForm === true ? link.otherUris : link.uris)[0] as string;
    }
  }
  return trials;
}

/**
 * Newer versions of Xray send nothing to private addresses unless a rule of the outbound lets them, and the
 * site is on loopback. That is `finalRules` from 26.5.3 on. An empty `ipsBlocked` does it from 26.4.15 on, and
 * Core does not know that field, so it is said by `raw`.
 */
export async function allowLoopback(core: ConformanceCore, nodeId: number): Promise<void> {
  const finalRules = [{ action: 'allow', ip: ['127.0.0.0/8'] }];
  const raw = JSON.stringify({ settings: { ipsBlocked: [] } });
  await core.command(
    ...['outbound', 'add', '--node', String(nodeId), '--tag', 'direct', '--protocol', 'freedom'],
    ...['--settings', JSON.stringify({ finalRules }), '--raw', raw],
  );
}

/** Whether Core leaves the inbound out of the configuration, because the node's Xray does not have it. */
function isLeftOut({ protocol }: Cell, version: string): boolean {
  return protocol === 'HYSTERIA2' && compareVersions(version, '26.3.23') < 0;
}

/** A subscription, and its link to a protocol. */
async function subscribe(core: ConformanceCore, userId: number, credential?: string) {
  const given = credential === undefined ? [] : ['--credential', credential];
  const { subscriptionId } = await core.command<{ subscriptionId: number }>(
    ...['subscription', 'create', '--user', String(userId), ...given],
  );
  const links = await core.command<{ uuid: string; nodeProtocolId: number }[]>(
    ...['link', 'list', '--subscription', String(subscriptionId)],
  );
  const to = async (nodeProtocolId: number) => {
    const found = links.find((one) => one.nodeProtocolId === nodeProtocolId);
    if (found === undefined) throw new Error(`there is no link to protocol ${nodeProtocolId}`);
    const { uuid } = found;
    const shown = await core.command<{ uris: string[]; otherUris: string[] }>('link', 'show', uuid);
    return { uuid, ...shown };
  };
  return { subscriptionId, to };
}

/** Adds the cells to the node as an operator does, and starts nginx for those that are behind one. */
async function addCells(
  bench: Bench,
  of: { cells: readonly Cell[]; nodeId: number; takePort: () => number; lifecycle: Lifecycle },
): Promise<Map<Cell, Added>> {
  const added = new Map<Cell, Added>();
  const fronts: Front[] = [];
  for (const cell of of.cells) {
    const [port, frontPort] = [of.takePort(), of.takePort()];
    const face = { host: '127.0.0.1', port: frontPort, security: 'tls', sni: serverName };
    const settings =
      cell.behind === undefined ? cell.settings : { ...cell.settings, faces: [face] };
    try {
      const { nodeProtocolId } = await bench.core.command<{ nodeProtocolId: number }>(
        ...['protocol', 'add', '--node', String(of.nodeId), '--protocol', cell.protocol],
        ...['--port', String(port), '--settings', JSON.stringify(settings)],
      );
      added.set(cell, { nodeProtocolId });
      if (cell.behind !== undefined) fronts.push({ kind: cell.behind, port, frontPort });
    } catch (thrown) {
      added.set(cell, { refusal: (thrown as Error).message });
    }
  }
  await startFront(bench, fronts, of.lifecycle);
  return added;
}

/** Whether the configuration has all cells and all users, and the way to the site. */
export function isWhole({ clientMap, services }: NodeConfig, trials: readonly Trial[]): boolean {
  const tags = new Set(services.xray?.inbounds.map(({ tag }) => tag));
  const allows = services.xray?.outbounds.some(({ settings }) => 'finalRules' in settings);
  return (
    allows === true &&
    trials.every(
      ({ uuid, nodeProtocolId }) =>
        uuid === '' || (uuid in clientMap && tags.has(`in-${nodeProtocolId}`)),
    )
  );
}
