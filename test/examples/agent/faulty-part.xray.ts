import { mkdirSync } from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import { createNode } from '../../../src/nodes/change.ts';
import { showNode } from '../../../src/nodes/node-state.ts';
import { endRollback } from '../../../src/publish/rollback.ts';
import { addOutbound } from '../../../src/settings/outbounds.ts';
import { addProtocol } from '../../../src/settings/protocols.ts';
import { createSubscription } from '../../../src/subscriptions/create.ts';
import { showShareLinks } from '../../../src/subscriptions/show-link.ts';
import { createUser } from '../../../src/subscriptions/users.ts';
import { makeCertificate } from '../../harness/conformance/certificate.ts';
import { until } from '../../support/api.ts';
import { freePorts } from '../../support/free-port.ts';
import { startRealCore } from '../../support/real-core.ts';
import { agentOn, waitMsMax, within } from '../../support/real-node.ts';
import { scratchFolder } from '../../support/scratch-folder.ts';
import { move, startSite } from '../../support/socks-traffic.ts';
import { startClient } from '../../support/xray-client.ts';

/** Xray, which `npm run real-node` names. */
const xray = process.env['CORE_TEST_XRAY'] ?? '';
if (xray === '') throw new Error('CORE_TEST_XRAY is not set: run this by npm run real-node');

const untilSo = <T>(ask: () => Promise<T>, isDone: (answer: T) => boolean): Promise<T> =>
  until(ask, isDone, waitMsMax);

type State = Awaited<ReturnType<typeof showNode>>;
const runsNewest = ({ unpublishedSince, reportedRevision, revision }: State): boolean =>
  unpublishedSince === null && reportedRevision === revision;

/** Core, a node with a VLESS protocol, and new users who move bytes through it. */
async function startNode(t: Test) {
  const folder = scratchFolder(t);
  const { pool, config, url, serve } = await startRealCore(t);
  await serve();
  // Of an authority that signed nothing here: the links are plain.
  const { authorityFile } = await makeCertificate(scratchFolder(t));
  const sitePort = await startSite(t);
  const [apiPort = 0, vlessPort = 0, trojanPort = 0, ...socksPorts] = await freePorts(6);
  const node = { name: 'n', region: 'eu', host: '127.0.0.1', ip: '' };
  const { nodeId, code } = await createNode(pool, node, config.nodes);
  // From 26.5 on, Xray lets nobody reach a private address unless a rule of the outbound allows it.
  const direct = { tag: 'direct', protocol: 'freedom' as const };
  await addOutbound(pool, { nodeId, ...direct, settings: { finalRules: [{ action: 'allow' }] } });
  const { nodeProtocolId } = await addProtocol(pool, {
    nodeId,
    protocol: 'VLESS',
    port: vlessPort,
    settings: {},
  });
  const show = () => showNode(pool, nodeId, config.nodes);
  /** Waits until the node runs what Core has rendered from all changes, without an error. */
  const untilInSync = () =>
    untilSo(show, (state) => runsNewest(state) && state.syncStatus === 'synced');
  /** Adds a user with a client, and returns once the client has moved bytes through the node. */
  const moveAsNewUser = async (name: string): Promise<void> => {
    const userId = await createUser(pool, { name });
    const subscription = { userId, trafficLimitBytes: null, expiresAt: null };
    const { subscriptionId } = await createSubscription(pool, subscription);
    const link = { subscriptionId, nodeProtocolId };
    const [uri = ''] = (await showShareLinks(pool, link)).uris;
    const socksPort = socksPorts.pop() ?? 0;
    const clientFolder = path.join(folder, name);
    mkdirSync(clientFolder);
    const links = [{ tag: name, socksPort, uri }];
    await startClient(t, { xray, folder: clientFolder, authorityFile, links });
    await untilSo(show, runsNewest);
    await within(move({ socksPort, sitePort }, { up: 1_000, down: 1_000 }), `${name} moves bytes`);
  };
  return { folder, pool, url, nodeId, code, apiPort, trojanPort, show, untilInSync, moveAsNewUser };
}

function agentOf(t: Test, node: Awaited<ReturnType<typeof startNode>>) {
  const { folder, url, code, apiPort } = node;
  const dataDir = path.join(folder, 'agent');
  return agentOn(t, { dataDir, coreUrl: url, apiPort, code, xray });
}

t.test('a certificate that does not exist does not keep new users out of a node', async (t) => {
  const node = await startNode(t);
  const { folder, pool, nodeId, trojanPort } = node;
  const { show, untilInSync, moveAsNewUser } = node;
  const agent = agentOf(t, node);
  agent.start();
  await moveAsNewUser('before');

  const certificateFile = path.join(folder, 'cert.pem');
  const keyFile = path.join(folder, 'key.pem');
  const settings = { security: 'tls', tls: { certificateFile, keyFile } };
  await addProtocol(pool, { nodeId, protocol: 'TROJAN', port: trojanPort, settings });
  const rolledBack = await untilSo(show, ({ faulty }) => faulty !== null);
  t.match(rolledBack, {
    status: 'error',
    faulty: { code: 'CONFIG_REFUSED', message: /cert\.pem/ },
  });
  await moveAsNewUser('after');
  t.match(await show(), { status: 'error', syncStatus: 'synced', lastError: null });

  const files = await makeCertificate(folder);
  t.match(
    files,
    { certificateFile, keyFile },
    'the operator puts the files where the protocol expects them',
  );
  await endRollback(pool, nodeId);
  await untilInSync();
  t.match(await show(), { status: 'online', faulty: null, rolledBackTo: null });
  await moveAsNewUser('at the end');
});

t.test('MTProto, which the agent cannot run, keeps no user out of the rest', async (t) => {
  const node = await startNode(t);
  const { pool, nodeId, trojanPort, show, moveAsNewUser } = node;
  const agent = agentOf(t, node);
  agent.start();
  await moveAsNewUser('before');

  const settings = { tlsDomain: 'example.com' };
  await addProtocol(pool, { nodeId, protocol: 'MTPROTO', port: trojanPort, settings });
  const isSaid = (state: State): boolean =>
    state.lastError?.code === 'SERVICE_UNSUPPORTED' && runsNewest(state);
  const said = await untilSo(show, isSaid);
  t.match(said, { status: 'error', faulty: null, rolledBackTo: null });
  await moveAsNewUser('after');
  const after = await untilSo(show, (now) => isSaid(now) && now.revision > said.revision);
  t.match(after, { faulty: null, rolledBackTo: null }, 'Core rolls nothing back');

  await agent.kill();
  agent.start();
  await agent.said(/took over the running proxy/);
  await moveAsNewUser('at the end');
  t.match(await untilSo(show, isSaid), { faulty: null }, 'and the error is there again');
});
