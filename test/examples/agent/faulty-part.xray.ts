import { mkdirSync } from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import { startWorker } from '../../../src/app/worker.ts';
import { createNode } from '../../../src/nodes/change.ts';
import { showNode } from '../../../src/nodes/node-state.ts';
import { endRollback } from '../../../src/publish/rollback.ts';
import { addProtocol } from '../../../src/settings/protocols.ts';
import { createSubscription } from '../../../src/subscriptions/create.ts';
import { readLinks } from '../../../src/subscriptions/links.ts';
import { createUser } from '../../../src/subscriptions/users.ts';
import { until } from '../../support/api.ts';
import { startCore } from '../../support/core-process.ts';
import { freePorts } from '../../support/free-port.ts';
import { agentOn, waitMsMax, within } from '../../support/real-node.ts';
import { scratchFolder } from '../../support/scratch-folder.ts';
import { move, startSite } from '../../support/socks-traffic.ts';
import { openDatabases } from '../../support/stores.ts';
import { makeCertificate, startV2rayClient } from '../../support/v2ray.ts';

/** Xray, which `npm run real-node` names. */
const xray = process.env['CORE_TEST_XRAY'] ?? '';
if (xray === '') throw new Error('CORE_TEST_XRAY is not set: run this by npm run real-node');

const untilSo = <T>(ask: () => Promise<T>, isDone: (answer: T) => boolean): Promise<T> =>
  until(ask, isDone, waitMsMax);

/** Core, a node with a VMess protocol, and new users who move bytes through it. */
async function startNode(t: Test) {
  const folder = scratchFolder(t);
  const stores = await openDatabases(t, { CORE_LOG_LEVEL: 'info' });
  const { pool, config, log } = stores;
  await stores.migrate();
  const worker = await startWorker(config, log);
  t.teardown(() => worker.close());
  const url = `http://127.0.0.1:${config.http.port}`;
  startCore(t, ['serve'], stores.environment);
  await untilSo(
    () =>
      fetch(`${url}/readyz`).then(
        ({ status }) => status,
        () => 0,
      ),
    (status) => status === 200,
  );
  const sitePort = await startSite(t);
  const [apiPort = 0, vmessPort = 0, trojanPort = 0, ...socksPorts] = await freePorts(6);
  const node = { name: 'n', region: 'eu', host: '', ip: '' };
  const { nodeId, code } = await createNode(pool, node, config.nodes);
  const { nodeProtocolId } = await addProtocol(pool, {
    nodeId,
    protocol: 'VMESS',
    port: vmessPort,
    settings: {},
  });
  const show = () => showNode(pool, nodeId, config.nodes);
  /** Waits until the node runs what Core has rendered from all changes. */
  const untilInSync = () =>
    untilSo(
      show,
      ({ syncStatus, unpublishedSince, reportedRevision, revision }) =>
        syncStatus === 'synced' && unpublishedSince === null && reportedRevision === revision,
    );
  /** Adds a user with a client, and returns once the client has moved bytes through the node. */
  const moveAsNewUser = async (name: string): Promise<void> => {
    const userId = await createUser(pool, { name });
    const subscription = { userId, trafficLimitBytes: null, expiresAt: null };
    const { subscriptionId } = await createSubscription(pool, subscription);
    const links = await readLinks(pool, { subscriptionId, nodeProtocolId });
    const uuid = links[0]?.credential ?? '';
    const socksPort = socksPorts.pop() ?? 0;
    const clientFolder = path.join(folder, name);
    mkdirSync(clientFolder);
    const place = { port: vmessPort, socksPort, network: 'tcp' as const };
    await startV2rayClient(t, clientFolder, [{ protocol: 'VMESS', tag: name, uuid, ...place }]);
    await untilInSync();
    await within(move({ socksPort, sitePort }, { up: 1_000, down: 1_000 }), `${name} moves bytes`);
  };
  return { folder, pool, url, nodeId, code, apiPort, trojanPort, show, untilInSync, moveAsNewUser };
}

t.test('a certificate that does not exist does not keep new users out of a node', async (t) => {
  const node = await startNode(t);
  const { folder, pool, url, nodeId, code, apiPort, trojanPort } = node;
  const { show, untilInSync, moveAsNewUser } = node;
  const agent = agentOn(t, {
    dataDir: path.join(folder, 'agent'),
    coreUrl: url,
    apiPort,
    code,
    xray,
  });
  agent.start();
  await moveAsNewUser('before');

  const missing = {
    certificateFile: path.join(folder, 'certificate.pem'),
    keyFile: path.join(folder, 'key.pem'),
  };
  const settings = { security: 'tls', tls: missing };
  await addProtocol(pool, { nodeId, protocol: 'TROJAN', port: trojanPort, settings });
  const rolledBack = await untilSo(show, ({ faulty }) => faulty !== null);
  t.match(rolledBack, {
    status: 'error',
    faulty: { code: 'CONFIG_REFUSED', message: /certificate\.pem/ },
  });
  await moveAsNewUser('after');
  t.match(await show(), { status: 'error', syncStatus: 'synced', lastError: null });

  const files = await makeCertificate(folder);
  t.match(files, missing, 'the operator puts the files where the protocol expects them');
  await endRollback(pool, nodeId);
  await untilInSync();
  t.match(await show(), { status: 'online', faulty: null, rolledBackTo: null });
  await moveAsNewUser('at the end');
});
