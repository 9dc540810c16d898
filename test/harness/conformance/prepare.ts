import type { NodeConfig } from '../../../src/contract/node-config.ts';
import type { Lifecycle } from '../../../src/lifecycle.ts';
import { fixedPorts } from '../../support/free-port.ts';
import { type Cell, type ClientName, missingIn } from './cells.ts';
import { serverName } from './certificate.ts';
import type { ConformanceCore } from './core.ts';
import { type Front, startFront } from './front.ts';
import { type DrivenNode, startNode } from './node.ts';
import type { Program } from './programs.ts';
import { type Bench, fail, type Outcome, type Trial } from './trial.ts';

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
  const trialsOf = async (client: ClientName, who: string): Promise<Trial[]> => {
    const links = await subscribe(bench.core, `${who} ${xray.version}`);
    return Promise.all(
      cells.map(async (cell, index) => {
        const [door, seed] = [await bench.open(cell.isInnerTls ? 'tls' : 'plain'), index * 16];
        const place = added.get(cell) as Added;
        const link = { tag: `${who}-${cell.name}`, uri: '', socksPort: takePort() };
        const reason = missingIn(client, cell);
        const outcome: Outcome =
          reason === undefined ? { kind: 'ok' } : { kind: 'missing', reason };
        const common = {
          cell,
          client,
          subscriptionId: links.subscriptionId,
          link,
          door,
          seed,
          outcome,
        };
        if ('refusal' in place) {
          const trial = { ...common, nodeProtocolId: 0, uuid: '' };
          fail(trial, 'a', place.refusal);
          return trial;
        }
        const { uuid, uri } = links.to(place.nodeProtocolId);
        link.uri = await uri();
        return { ...common, nodeProtocolId: place.nodeProtocolId, uuid };
      }),
    );
  };
  const trials: Trial[] = [];
  for (const { name } of bench.clients) trials.push(...(await trialsOf(name, name)));
  return { node, trials, witnesses: await trialsOf('xray', 'witness') };
}

/**
 * Newer versions of Xray send nothing to private addresses unless a rule of the outbound lets them, and the
 * site is on loopback. That is `finalRules` from 26.5.3 on, and an empty `ipsBlocked` from 26.4.15 on.
 */
async function allowLoopback(core: ConformanceCore, nodeId: number): Promise<void> {
  const finalRules = [{ action: 'allow', ip: ['127.0.0.0/8'] }];
  const settings = JSON.stringify({ finalRules, ipsBlocked: [] });
  await core.command(
    ...['outbound', 'add', '--node', String(nodeId), '--tag', 'direct'],
    ...['--protocol', 'freedom', '--settings', settings],
  );
}

/** A user with a subscription. Returns its link to a protocol. */
async function subscribe(core: ConformanceCore, name: string) {
  const user = await core.command<{ userId: number }>('user', 'create', '--name', name);
  const { subscriptionId } = await core.command<{ subscriptionId: number }>(
    ...['subscription', 'create', '--user', String(user.userId)],
  );
  const links = await core.command<{ uuid: string; nodeProtocolId: number }[]>(
    ...['link', 'list', '--subscription', String(subscriptionId)],
  );
  const to = (nodeProtocolId: number) => {
    const link = links.find((one) => one.nodeProtocolId === nodeProtocolId);
    if (link === undefined) throw new Error(`${name} has no link to protocol ${nodeProtocolId}`);
    const uri = async () => (await core.command<{ uri: string }>('link', 'show', link.uuid)).uri;
    return { uuid: link.uuid, uri };
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
