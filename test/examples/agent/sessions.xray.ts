import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { versionOf } from '../../../examples/agent/proxy.ts';
import { createNode } from '../../../src/nodes/change.ts';
import { showNode } from '../../../src/nodes/node-state.ts';
import { addOutbound } from '../../../src/settings/outbounds.ts';
import { addProtocol } from '../../../src/settings/protocols.ts';
import { changeSubscription } from '../../../src/subscriptions/change.ts';
import { createSubscription } from '../../../src/subscriptions/create.ts';
import { rotateLinks } from '../../../src/subscriptions/rotate.ts';
import { showShareLinks } from '../../../src/subscriptions/show-link.ts';
import { createUser } from '../../../src/subscriptions/users.ts';
import type { AppLink } from '../../harness/conformance/app-link.ts';
import { makeCertificate, serverName } from '../../harness/conformance/certificate.ts';
import { until } from '../../support/api.ts';
import { type Download, startEndlessSite } from '../../support/endless-site.ts';
import { freePorts } from '../../support/free-port.ts';
import { startRealCore } from '../../support/real-core.ts';
import { agentOn, bytesOf, ownAddress, waitMsMax, within } from '../../support/real-node.ts';
import { scratchFolder } from '../../support/scratch-folder.ts';
import { move, startSite } from '../../support/socks-traffic.ts';
import { startUdpSession, startUdpSite, type UdpSession } from '../../support/udp-session.ts';
import { startClient } from '../../support/xray-client.ts';

/** Xray, which `npm run real-node` names. */
const xray = process.env['CORE_TEST_XRAY'] ?? '';
if (xray === '') throw new Error('CORE_TEST_XRAY is not set: run this by npm run real-node');

/** A session is still if nothing comes for this long. */
const stillMs = 1_500;
/** What no longer comes through has failed by then. */
const tryMsMax = 5_000;
/** A client of QUIC notices only by its idle timeout of 30 s that it was cut. */
const newLinkMsMax = 60_000;

const mux = { concurrency: 8, xudpConcurrency: 8 };
const kindsWith = (tls: { certificateFile: string; keyFile: string; serverName: string }) =>
  [
    { name: 'vless over mux', protocol: 'VLESS', settings: {}, mux },
    {
      name: 'vision with XUDP',
      protocol: 'VLESS',
      settings: { flow: 'xtls-rprx-vision', security: 'tls', tls },
      mux: { concurrency: -1, xudpConcurrency: 8 },
    },
    { name: 'vmess over mux', protocol: 'VMESS', settings: {}, mux },
    { name: 'trojan over mux', protocol: 'TROJAN', settings: { security: 'tls', tls }, mux },
    { name: 'hysteria2', protocol: 'HYSTERIA2', settings: { tls } },
    { name: 'shadowsocks', protocol: 'SHADOWSOCKS', settings: {} },
  ] as const;

interface Link {
  name: string;
  kind: ReturnType<typeof kindsWith>[number];
  subscriptionId: number;
  nodeProtocolId: number;
  uuid: string;
  socksPort: number;
}

/** Two downloads and datagrams that go back and forth. Over mux they share one connection. */
interface Session {
  link: Link;
  downloads: Download[];
  udp: UdpSession;
}

/** Core, a node with six protocols and its agent, and three users who each have a client on every protocol. */
async function startNode(t: Test) {
  const folder = scratchFolder(t);
  const core = await startRealCore(t);
  await core.serve();
  const { pool } = core;
  const { authorityFile, certificateFile, keyFile } = await makeCertificate(folder);
  const kinds = kindsWith({ certificateFile, keyFile, serverName });
  const ports = await freePorts(kinds.length * 5 + 1);
  const takePort = (): number => ports.pop() as number;
  const node = { name: 'n', region: 'eu', host: ownAddress(), ip: '' };
  const { nodeId, code } = await createNode(pool, node, core.config.nodes);
  // From 26.5 on, Xray lets nobody reach a private address unless a rule of the outbound allows it.
  const settings = { finalRules: [{ action: 'allow' }] };
  await addOutbound(pool, { nodeId, tag: 'direct', protocol: 'freedom', settings });
  const links: Link[] = [];
  for (const kind of kinds) {
    const { protocol, settings } = kind;
    await addProtocol(pool, { nodeId, protocol, port: takePort(), settings });
  }
  for (const who of ['stays', 'rotated', 'removed']) {
    for (const [index, kind] of kinds.entries()) {
      const name = `${kind.name}, ${who}`;
      const userId = await createUser(pool, { name });
      const unlimited = { userId, trafficLimitBytes: null, expiresAt: null };
      const made = await createSubscription(pool, unlimited);
      const { nodeProtocolId = 0, uuid = '' } = made.links[index] ?? {};
      const { subscriptionId } = made;
      links.push({ name, kind, subscriptionId, nodeProtocolId, uuid, socksPort: takePort() });
    }
  }
  /** A link as a client app has it now. Who stays comes from another address: the agent cuts by address. */
  const appLink = async ({ name, uuid, kind, socksPort }: Link): Promise<AppLink> => {
    const [uri = ''] = (await showShareLinks(pool, { uuid })).uris;
    const own = name.endsWith('stays') ? uri.replace(`@${node.host}:`, '@127.0.0.1:') : uri;
    return { tag: name, uri: own, socksPort, ...('mux' in kind && { mux: kind.mux }) };
  };
  const startClients = async (name: string, of: readonly Link[]): Promise<void> => {
    const clientFolder = path.join(folder, name);
    mkdirSync(clientFolder);
    const appLinks = await Promise.all(of.map(appLink));
    await startClient(t, { xray, folder: clientFolder, authorityFile, links: appLinks });
  };
  const dataDir = path.join(folder, 'agent');
  const agent = agentOn(t, { dataDir, coreUrl: core.url, apiPort: takePort(), code, xray });
  agent.start();
  await startClients('first', links);
  return {
    ...{ core, pool, nodeId, agent, links, startClients, takePort },
    site: await startEndlessSite(t),
    sitePort: await startSite(t),
    udpSitePort: await startUdpSite(t),
    of: (who: string): Link[] => links.filter(({ name }) => name.endsWith(who)),
    untilApplied: (revision: number) =>
      until(
        () => core.node(nodeId),
        ({ applied, revision: newest, pending, sync }) =>
          applied >= revision && applied === newest && !pending && sync === 'synced',
        waitMsMax,
      ),
  };
}
type Node = Awaited<ReturnType<typeof startNode>>;

async function openSessions(t: Test, node: Node, links: readonly Link[]): Promise<Session[]> {
  const { site, udpSitePort } = node;
  return Promise.all(
    links.map(async (link) => {
      const { socksPort, name } = link;
      const open = async () => [
        await site.download(socksPort, name),
        await site.download(socksPort, name),
      ];
      const downloads = await within(open(), `downloads of ${name}`);
      const way = { socksPort, sitePort: udpSitePort };
      const udp = await within(startUdpSession(t, way), `datagrams of ${name}`);
      return { link, downloads, udp };
    }),
  );
}

const flowsOf = ({ downloads, udp }: Session) => [...downloads, udp];

function stopAll(sessions: readonly Session[]): void {
  for (const session of sessions) for (const flow of flowsOf(session)) flow.stop();
}

/** Waits until nothing comes any more over any flow of the session. */
async function untilStill(session: Session): Promise<void> {
  for (;;) {
    const before = flowsOf(session).map((flow) => flow.received());
    await delay(stillMs);
    if (flowsOf(session).every((flow, index) => flow.received() === before[index])) return;
  }
}

/** Waits until more has come over every flow of the session. */
async function untilMore(session: Session): Promise<void> {
  const before = flowsOf(session).map((flow) => flow.received());
  await until(
    async () => flowsOf(session).every((flow, index) => flow.received() > (before[index] ?? 0)),
    (isMore) => isMore,
    waitMsMax,
  );
}

async function comesThrough(node: Node, { socksPort }: Link, msMax = tryMsMax): Promise<boolean> {
  const way = { socksPort, sitePort: node.sitePort };
  const tried = move(way, { up: 0, down: 1 }).then(
    () => true,
    () => false,
  );
  return Promise.race([tried, delay(msMax, false, { ref: false })]);
}

/** All sessions of some links end by what `take` does, and nobody else's; the old links are of no use. */
async function expectEnd(
  t: Test,
  node: Node,
  given: { who: string; staying: Session[]; take: (link: Link) => Promise<unknown> },
): Promise<void> {
  const { who, staying, take } = given;
  const proxy = await node.agent.proxy();
  const sessions = await openSessions(t, node, node.of(who));
  await Promise.all([...sessions, ...staying].map(untilMore));
  const { revision } = await node.core.node(node.nodeId);
  const atMs = performance.now();
  for (const { link } of sessions) await take(link);
  await Promise.all(
    sessions.map(async (session) => {
      await within(untilStill(session), `the sessions of ${session.link.name} end`);
      const ms = Math.round(performance.now() - atMs - stillMs);
      t.comment(`  ${session.link.name}: still at most ${ms} ms after the first command`);
    }),
  );
  await node.untilApplied(revision + 1);
  for (const { link } of sessions) {
    t.notOk(await comesThrough(node, link), `${link.name}: the old link is of no use`);
  }
  for (const session of staying) {
    await within(untilMore(session), `${session.link.name} goes on`);
    t.ok(
      session.downloads.every((one) => one.isOpen()),
      `${session.link.name}: not cut`,
    );
  }
  t.equal(await node.agent.proxy(), proxy, `${who}: without a restart`);
  stopAll(sessions);
}

async function newLinksWork(t: Test, node: Node, links: readonly Link[]): Promise<void> {
  for (const link of links) link.socksPort = node.takePort();
  await node.startClients('second', links);
  await Promise.all(
    links.map(async (link) => {
      const works = await until(
        () => comesThrough(node, link),
        (is) => is,
        newLinkMsMax,
      );
      t.ok(works, `${link.name}: the new link works`);
    }),
  );
}

async function bytesAgree(t: Test, node: Node): Promise<void> {
  const figures = await node.agent.figures();
  for (const link of node.links) {
    const said = bytesOf(figures, `user>>>${link.uuid}`);
    const isSame = ({ up, down }: typeof said): boolean => up === said.up && down === said.down;
    const { counted, ...rows } = await until(
      () => node.core.stored(link),
      (now) => isSame(now) && isSame(now.counted),
      waitMsMax,
    );
    t.comment(`  ${link.name}: Xray ${said.up} ${said.down}, Core ${rows.up} ${rows.down}`);
    t.same([rows, counted], [said, said], `${link.name}: rows and counter, to the byte`);
  }
}

async function nodeIsShown(t: Test, node: Node): Promise<void> {
  const { pool, core, nodeId } = node;
  const { versions, load, status } = await until(
    () => showNode(pool, nodeId, core.config.nodes),
    (shown) => shown.load.cpuPercent !== null,
    waitMsMax,
  );
  t.match(versions, { agent: /^\d+\.\d+\.\d+$/, xray: await versionOf(xray) });
  t.equal(status, 'online');
  const { cpuPercent, memoryBytes, uptimeSeconds } = load;
  t.comment(`  ${JSON.stringify({ versions, load })}`);
  t.ok(cpuPercent !== null && cpuPercent > 0 && cpuPercent <= 100, 'the CPUs work');
  t.ok((memoryBytes ?? 0) > 1e8 && (uptimeSeconds ?? 0) > 0, 'memory and uptime of the machine');
}

async function everybodyWentOffline(t: Test, node: Node): Promise<void> {
  const find = () =>
    node.core.rows<{ protocol: string; event_type: string; users: string; ips: string[] }>(
      `SELECT protocol, event_type, uniqExact(user_id) AS users,
         groupUniqArray(toString(ip_address)) AS ips
       FROM session_events GROUP BY protocol, event_type ORDER BY protocol, event_type`,
    );
  const all = await until(
    find,
    (rows) =>
      rows.length === 10 &&
      rows.every(({ users, protocol }) => {
        return Number(users) === (protocol === 'VLESS' ? 6 : 3);
      }),
    waitMsMax,
  ).catch(find);
  for (const row of all) t.comment(`  ${JSON.stringify(row)}`);
  t.equal(all.length, 10, 'five protocols, each with ONLINE and OFFLINE');
  for (const { protocol, event_type, users } of all) {
    t.equal(
      Number(users),
      protocol === 'VLESS' ? 6 : 3,
      `${protocol}: every user went ${event_type}`,
    );
  }
  const online = all.filter(({ event_type }) => event_type === 'ONLINE');
  t.ok(
    online.every(({ ips }) => ips.join().includes(ownAddress())),
    'the address of who does not come from loopback is known',
  );
}

t.test('sessions of rotated and of removed users end, also over mux and QUIC', async (t) => {
  const node = await startNode(t);
  await node.untilApplied(1);
  const staying = await openSessions(t, node, node.of('stays'));
  await expectEnd(t, node, {
    ...{ who: 'rotated', staying },
    take: ({ subscriptionId }) => rotateLinks(node.pool, subscriptionId),
  });
  await newLinksWork(t, node, node.of('rotated'));
  await expectEnd(t, node, {
    ...{ who: 'removed', staying },
    take: ({ subscriptionId }) => changeSubscription(node.pool, subscriptionId, { disabled: true }),
  });
  await nodeIsShown(t, node);
  stopAll(staying);
  await bytesAgree(t, node);
  await everybodyWentOffline(t, node);
});
