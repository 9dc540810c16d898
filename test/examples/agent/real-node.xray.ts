import { mkdirSync } from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import { Lifecycle } from '../../../src/lifecycle.ts';
import { createNode } from '../../../src/nodes/change.ts';
import { addOutbound, setOutbound } from '../../../src/settings/outbounds.ts';
import { addProtocol } from '../../../src/settings/protocols.ts';
import { changeSubscription } from '../../../src/subscriptions/change.ts';
import { createSubscription } from '../../../src/subscriptions/create.ts';
import { showShareLinks } from '../../../src/subscriptions/show-link.ts';
import { createUser } from '../../../src/subscriptions/users.ts';
import { makeCertificate, serverName } from '../../harness/conformance/certificate.ts';
import { startSite as startTlsSite } from '../../harness/conformance/site.ts';
import { until } from '../../support/api.ts';
import { type Download, startEndlessSite } from '../../support/endless-site.ts';
import { freePorts } from '../../support/free-port.ts';
import { type Bytes, type RealCore, startRealCore } from '../../support/real-core.ts';
import {
  agentOn,
  bytesOf,
  ownAddress,
  usageSeconds,
  waitMsMax,
  within,
} from '../../support/real-node.ts';
import { scratchFolder } from '../../support/scratch-folder.ts';
import { move, startSite } from '../../support/socks-traffic.ts';
import { startClient } from '../../support/xray-client.ts';

const mebibyte = 1_048_576;
/** Xray, which `npm run real-node` names. */
const xray = process.env['CORE_TEST_XRAY'] ?? '';
if (xray === '') throw new Error('CORE_TEST_XRAY is not set: run this by npm run real-node');

/** Waits long, since several real processes work behind each step. */
const untilSo = <T>(ask: () => Promise<T>, isDone: (answer: T) => boolean): Promise<T> =>
  until(ask, isDone, waitMsMax);
/** As `untilSo`, for what fails by a figure that the test then shows. */
const settled = <T>(ask: () => Promise<T>, isDone: (answer: T) => boolean): Promise<T> =>
  until(ask, isDone, settleMsMax).catch(ask);
const settleMsMax = 30_000;

/** A subscription with one protocol that its client uses. Every subscription has one link that is used. */
interface Link {
  name: string;
  subscriptionId: number;
  userId: number;
  nodeProtocolId: number;
  uuid: string;
  socksPort: number;
}

const kindsWith = (
  tls: { certificateFile: string; keyFile: string; serverName: string },
  target: string,
) =>
  [
    {
      name: 'reality',
      protocol: 'VLESS',
      settings: {
        ...{ flow: 'xtls-rprx-vision', security: 'reality' },
        reality: { target, serverNames: [tls.serverName] },
      },
    },
    {
      name: 'vision',
      protocol: 'VLESS',
      settings: { flow: 'xtls-rprx-vision', security: 'tls', tls },
    },
    { name: 'hysteria2', protocol: 'HYSTERIA2', settings: { tls } },
    { name: 'shadowsocks', protocol: 'SHADOWSOCKS', settings: {} },
    { name: 'vless-ws', protocol: 'VLESS', settings: { network: 'ws', ws: { path: '/ray' } } },
    { name: 'trojan', protocol: 'TROJAN', settings: { security: 'tls', tls } },
  ] as const;

/** Core, a node with six protocols and its agent, and a client on a link of each, for two users. */
async function startRealNode(t: Test) {
  const folder = scratchFolder(t);
  const core = await startRealCore(t);
  const { pool } = core;
  const api = await core.serve();
  const certificate = await makeCertificate(folder);
  const lifecycle = new Lifecycle();
  t.teardown(() => lifecycle.close());
  // What a REALITY inbound shows to strangers.
  const { tlsPort } = await startTlsSite(certificate, lifecycle);
  const { certificateFile, keyFile, authorityFile } = certificate;
  const kinds = kindsWith({ certificateFile, keyFile, serverName }, `127.0.0.1:${tlsPort}`);
  const ports = await freePorts(kinds.length * 4 + 8);
  const takePort = (): number => ports.pop() as number;
  const node = { name: 'n', region: 'eu', host: ownAddress(), ip: '' };
  const { nodeId, code } = await createNode(pool, node, core.config.nodes);
  // From 26.5 on, Xray lets nobody reach a private address unless a rule of the outbound allows it.
  const settings = { finalRules: [{ action: 'allow' }] };
  await addOutbound(pool, { nodeId, tag: 'direct', protocol: 'freedom', settings });
  const served = [];
  for (const { name, protocol, settings } of kinds) {
    const port = takePort();
    served.push({ name, ...(await addProtocol(pool, { nodeId, protocol, port, settings })) });
  }
  const links: Link[] = [];
  for (const who of ['a', 'b']) {
    for (const kind of served) {
      const name = `${kind.name}-${who}`;
      links.push({ ...(await subscribe(core, name, kind.nodeProtocolId)), socksPort: takePort() });
    }
  }
  const clientLinks = await Promise.all(
    links.map(async ({ name, uuid, socksPort }) => {
      const [uri = ''] = (await showShareLinks(pool, { uuid })).uris;
      // The second user comes from another address, since the agent cuts by address.
      const isOther = name.endsWith('-b');
      const own = isOther ? uri.replace(`@${node.host}:`, '@127.0.0.1:') : uri;
      return { tag: name, socksPort, uri: own };
    }),
  );
  await startClient(t, { xray, folder, authorityFile, links: clientLinks });
  const dataDir = path.join(folder, 'agent');
  const agent = agentOn(t, { dataDir, coreUrl: core.url, apiPort: takePort(), code, xray });
  agent.start();
  const linkOf = (name: string): Link => {
    const link = links.find((one) => one.name === name);
    if (link === undefined) throw new Error(`there is no link ${name}`);
    return link;
  };
  return {
    ...{ folder, core, api, agent, nodeId, takePort, links, linkOf, proxy: 0 },
    site: await startEndlessSite(t),
    sitePort: await startSite(t),
    /** Waits until the node runs this revision or a later one. */
    untilApplied: (revision: number) =>
      untilSo(
        () => core.node(nodeId),
        ({ applied, revision: newest, pending, sync }) =>
          applied >= revision && applied === newest && !pending && sync === 'synced',
      ),
  };
}
/** `api` and `proxy` are the processes that run now; the steps replace them. */
type RealNode = Awaited<ReturnType<typeof startRealNode>>;

async function subscribe({ pool }: RealCore, name: string, nodeProtocolId: number) {
  const userId = await createUser(pool, { name });
  const limits = { userId, trafficLimitBytes: null, expiresAt: null };
  const { subscriptionId, links } = await createSubscription(pool, limits);
  const uuid = links.find((link) => link.nodeProtocolId === nodeProtocolId)?.uuid ?? '';
  return { name, userId, subscriptionId, nodeProtocolId, uuid };
}

/** Waits until Core's rows and counters say what Xray says. No traffic may flow. */
async function expectSame(t: Test, node: RealNode, when: string): Promise<void> {
  const { core, agent, links } = node;
  const figures = await agent.figures();
  t.comment(`${when}: bytes up and down, as Xray counted and as Core's rows sum up`);
  for (const link of links) {
    const said = bytesOf(figures, `user>>>${link.uuid}`);
    const isSame = ({ up, down }: Bytes): boolean => up === said.up && down === said.down;
    const stored = await settled(
      () => core.stored(link),
      (now) => isSame(now) && isSame(now.counted),
    );
    const { counted, ...rows } = stored;
    t.comment(
      `  ${link.name.padEnd(14)} Xray ${said.up} ${said.down}, Core ${rows.up} ${rows.down}`,
    );
    t.same(rows, said, `${when}: rows of ${link.name}, to the byte`);
    t.same(counted, said, `${when}: counter of ${link.name}`);
  }
  t.equal(agent.refused(), 0, 'no post was refused');
}

/** Xray as a Trojan client fails ("buffer is full") if the first write is larger than its buffer. */
function upOf(name: string): number {
  return name.startsWith('trojan') ? 4_096 : 65_536;
}

async function everyLinkMovesAKnownSize(t: Test, node: RealNode): Promise<void> {
  const { agent, links, sitePort } = node;
  for (const { name, socksPort } of links) {
    await move({ socksPort, sitePort }, { up: upOf(name), down: mebibyte }).catch(
      (cause: unknown) => {
        throw new Error(`${name} does not work`, { cause });
      },
    );
  }
  await expectSame(t, node, 'every link moved a known size up and 1 MiB down');
  const figures = await agent.figures();
  for (const { name, uuid } of links) {
    const said = bytesOf(figures, `user>>>${uuid}`);
    const up = upOf(name);
    t.ok(said.up >= up && said.down >= mebibyte, `${name}: at least the payload`);
    t.ok(said.up + said.down < 1.03 * (up + mebibyte), `${name}: hardly more than it`);
  }
}

/** A download of every link of one user at once. */
async function downloads(
  node: RealNode,
  who: string,
  links = node.links.filter(({ name }) => name.endsWith(`-${who}`)),
): Promise<[Link, Download][]> {
  return Promise.all(
    links.map(async (link): Promise<[Link, Download]> => {
      return [link, await node.site.download(link.socksPort, link.name)];
    }),
  );
}

/** Waits until each has moved as much again. */
async function flow(running: readonly [Link, Download][], bytes = 2 * mebibyte): Promise<void> {
  for (const [link, download] of running) {
    const goal = download.received() + bytes;
    while (download.received() < goal) {
      if (!download.isOpen()) throw new Error(`${link.name} was cut`);
      await within(download.more(), `${link.name} goes on`);
    }
  }
}

function stopAll(running: readonly [Link, Download][]): void {
  for (const [, download] of running) download.stop();
}

/** With splicing off Xray counts while the bytes move, so that a limit takes effect during a download. */
async function countedDuringADownload(t: Test, node: RealNode): Promise<void> {
  const link = node.linkOf('vision-a');
  const before = (await node.core.stored(link)).down;
  const download = await node.site.download(link.socksPort, link.name);
  const seen = await untilSo(
    () => node.core.stored(link),
    ({ down }) => down > before + 2 * mebibyte,
  );
  t.ok(download.isOpen(), `vision: ${seen.down - before} bytes are stored during the download`);
  download.stop();
  await expectSame(t, node, 'a download over vision was ended');
}

/** A limit that a user crosses during a download cuts that user's link, and nobody else's. */
async function limitDuringADownload(
  t: Test,
  node: RealNode,
  { limited, going }: { limited: string[]; going: string[] },
): Promise<void> {
  const { core, agent, untilApplied } = node;
  const others = await downloads(node, '', going.map(node.linkOf));
  for (const name of limited) {
    const link = node.linkOf(name);
    const { subscriptionId } = link;
    const before = (await core.stored(link)).counted;
    const trafficLimitBytes = before.up + before.down + 8 * mebibyte;
    await changeSubscription(core.pool, subscriptionId, { trafficLimitBytes });
    const download = await node.site.download(link.socksPort, name);
    await within(cut(download), `${name} is cut`);
    const after = (await settledBytes(node, link)).counted;
    const over = after.up + after.down - trafficLimitBytes;
    t.ok(over >= 0, `${name}: cut after the limit, by ${over} bytes`);
    t.comment(`  ${name}: received ${download.received()} of ${8 * mebibyte} until the limit`);
    download.stop();
    const { revision } = await core.node(node.nodeId);
    await changeSubscription(core.pool, subscriptionId, { trafficLimitBytes: null });
    await untilApplied(revision + 1);
  }
  await flow(others);
  for (const [link, download] of others) t.ok(download.isOpen(), `${link.name} went on`);
  stopAll(others);
  t.equal(await agent.proxy(), node.proxy, 'limits took effect without a restart');
  await expectSame(t, node, `cut by their limits: ${limited.join(', ')}`);
}

/** What Core has stored of a link, once it is what Xray says. Nothing may flow over it. */
async function settledBytes({ core, agent }: RealNode, link: Link) {
  const said = bytesOf(await agent.counters(), `user>>>${link.uuid}`);
  return settled(
    () => core.stored(link),
    ({ counted }) => counted.up === said.up && counted.down === said.down,
  );
}

/** The agent dies in the middle of transfers, Xray goes on, and the next agent takes it over. */
async function agentDies(t: Test, node: RealNode): Promise<void> {
  const running = await downloads(node, 'a');
  for (let round = 1; round <= 3; round += 1) {
    await flow(running);
    await node.agent.kill();
    await flow(running);
    node.agent.start();
    await node.agent.said(/took over the running proxy/);
  }
  await flow(running);
  stopAll(running);
  t.equal(await node.agent.proxy(), node.proxy, 'Xray outlived three agents');
  await expectSame(t, node, 'the agent was killed three times during downloads');
}

/** Core dies in the middle of transfers: the agent stores its posts and delivers each once. */
async function coreDies(t: Test, node: RealNode): Promise<void> {
  const { core, agent } = node;
  const running = await downloads(node, 'b');
  for (let round = 1; round <= 2; round += 1) {
    await flow(running);
    node.api.signal('SIGKILL');
    await node.api.exited;
    await untilSo(
      async () => agent.storedPosts(),
      (posts) => posts > 2,
    );
    await agent.kill();
    agent.start();
    await flow(running);
    node.api = await core.serve();
  }
  stopAll(running);
  await expectSame(t, node, 'Core was killed twice, and the agent while Core was away');
}

/**
 * Xray dies in the middle of transfers: what it counted after the last reading is lost, and no more than
 * that. Then the agent starts it again, and Core gets the usage of both processes.
 */
async function proxyDies(t: Test, node: RealNode): Promise<void> {
  const { core, agent, site } = node;
  for (let round = 1; round <= 3; round += 1) {
    // A client of Hysteria2 takes 30 s to notice that the proxy is another process.
    const links = node.links.filter(({ name }) => {
      return name.endsWith('-a') && (round === 1 || !name.startsWith('hysteria2'));
    });
    const before = await Promise.all(links.map((link) => core.stored(link)));
    const sentBefore = links.map(({ name }) => site.sentTo(name));
    const running = await downloads(node, 'a', links);
    await flow(running, 4 * mebibyte);
    process.kill(node.proxy, 'SIGKILL');
    node.proxy = await agent.proxy(node.proxy);
    await agent.said(/the proxy runs/);
    stopAll(running);
    await untilSo(
      async () => agent.storedPosts(),
      (posts) => posts === 0,
    );
    for (const [index, [link, download]] of running.entries()) {
      const had = before[index]?.down ?? 0;
      const sent = site.sentTo(link.name) - (sentBefore[index] ?? 0);
      // Reading and posting take their time, too.
      const bound = 3_500_000 * (usageSeconds + 1.5);
      const received = download.received();
      const { down } = await settled(
        () => core.stored(link),
        (now) => now.down - had >= received - bound,
      );
      const lost = received - (down - had);
      t.comment(
        `  round ${round}, ${link.name}: received ${received}, stored ${down - had}, lost ${lost}`,
      );
      t.ok(lost <= bound, `${link.name}: what Core lacks was counted after the last reading`);
      t.ok(down - had <= sent, `${link.name}: nothing counts twice`);
    }
  }
  await agent.retireFromStored(
    await Promise.all(
      node.links.map(async (link) => ({
        uuid: link.uuid,
        ...(await core.stored(link)),
      })),
    ),
  );
}

/** A user comes, a user goes, an inbound comes: without a restart, and the sessions of others go on. */
async function changesWithoutARestart(t: Test, node: RealNode): Promise<void> {
  const { core, agent, nodeId, takePort, untilApplied } = node;
  const [mine, others] = [await downloads(node, 'a'), await downloads(node, 'b')];
  await flow([...mine, ...others]);
  let { revision } = await core.node(nodeId);
  const userId = await createUser(core.pool, { name: 'new' });
  await createSubscription(core.pool, { userId, trafficLimitBytes: null, expiresAt: null });
  await untilApplied(revision + 1);
  ({ revision } = await core.node(nodeId));
  const added = { nodeId, protocol: 'VLESS', port: takePort(), settings: {} } as const;
  await addProtocol(core.pool, added);
  await untilApplied(revision + 1);
  t.equal(await agent.proxy(), node.proxy, 'users and an inbound came without a restart');
  await flow([...mine, ...others]);
  for (const [link, download] of mine) {
    const atMs = performance.now();
    await changeSubscription(core.pool, link.subscriptionId, { disabled: true });
    await within(cut(download), `${link.name} is cut`);
    t.comment(`  ${link.name}: cut ${Math.round(performance.now() - atMs)} ms after the command`);
  }
  t.equal(await agent.proxy(), node.proxy, 'users went without a restart');
  await flow(others);
  for (const [link, download] of others) t.ok(download.isOpen(), `${link.name} went on`);
  stopAll([...mine, ...others]);
  for (const [link] of mine) {
    await t.rejects(
      within(move({ socksPort: link.socksPort, sitePort: node.sitePort }, { up: 0, down: 1 }), ''),
      `${link.name}: no new connection`,
    );
  }
  await expectSame(t, node, 'after the users went');
  for (const [link] of mine) {
    await changeSubscription(core.pool, link.subscriptionId, { disabled: false });
  }
}

/** Nothing comes any more: the connection is closed, or a client of UDP has not noticed it yet. */
async function cut(download: Download): Promise<void> {
  for (;;) {
    const before = download.received();
    await Promise.race([download.closed, new Promise((resolve) => setTimeout(resolve, 1_000))]);
    if (!download.isOpen() || download.received() === before) return;
  }
}

/** Xray refuses a configuration while a certificate is missing, and takes it once the file is there. */
async function configurationIsRefused(t: Test, node: RealNode): Promise<void> {
  const { core, agent, nodeId, folder, takePort, untilApplied } = node;
  const running = await downloads(node, 'b');
  const lateFolder = path.join(folder, 'late');
  const certificateFile = path.join(lateFolder, 'cert.pem');
  const keyFile = path.join(lateFolder, 'key.pem');
  const added = await addProtocol(core.pool, {
    nodeId,
    protocol: 'TROJAN',
    port: takePort(),
    settings: { security: 'tls', tls: { certificateFile, keyFile } },
  });
  const refused = await untilSo(
    () => core.node(nodeId),
    ({ sync }) => sync === 'failed',
  );
  t.equal(refused.error, 'CONFIG_REFUSED');
  const { rows } = await core.pool.query(
    `SELECT details FROM node_reports WHERE node_id = $1 AND kind = 'error' ORDER BY id DESC LIMIT 1`,
    [nodeId],
  );
  t.comment(`  details of the report: ${JSON.stringify(rows[0])}; in-${added.nodeProtocolId}`);
  await flow(running);
  t.equal(await agent.proxy(), node.proxy, 'the old configuration goes on');
  mkdirSync(lateFolder);
  await makeCertificate(lateFolder);
  await untilApplied(refused.revision);
  await flow(running);
  t.equal(await agent.proxy(), node.proxy, 'and the new one needed no restart');
  stopAll(running);
  await expectSame(t, node, 'a configuration was refused, then applied');
}

/** Another first outbound restarts Xray. It is drained first, so not a byte is lost. */
async function restartsWithoutLoss(t: Test, node: RealNode): Promise<void> {
  const { core, agent, nodeId, site, untilApplied } = node;
  const links = node.links.filter(({ name }) => name.endsWith('-b'));
  const before = await Promise.all(links.map((link) => core.stored(link)));
  const sentBefore = links.map(({ name }) => site.sentTo(name));
  const running = await downloads(node, 'b');
  await flow(running);
  const { revision } = await core.node(nodeId);
  const settings = { finalRules: [{ action: 'allow' }], domainStrategy: 'UseIPv4' };
  await setOutbound(core.pool, { nodeId, tag: 'direct', protocol: 'freedom', settings });
  await untilApplied(revision + 1);
  node.proxy = await agent.proxy(node.proxy);
  stopAll(running);
  for (const [index, [link, download]] of running.entries()) {
    const had = before[index]?.down ?? 0;
    const received = download.received();
    const sent = site.sentTo(link.name) - (sentBefore[index] ?? 0);
    const { down } = await settled(
      () => core.stored(link),
      (now) => now.down - had >= received,
    );
    t.comment(`  ${link.name}: received ${received}, stored ${down - had}, sent ${sent}`);
    t.ok(down - had >= received, `${link.name}: no byte that came is missing`);
    t.ok(down - had <= sent, `${link.name}: nothing counts twice`);
  }
  await agent.retireFromStored(
    await Promise.all(
      node.links.map(async (link) => ({
        uuid: link.uuid,
        ...(await core.stored(link)),
      })),
    ),
  );
}

async function sessionsAreStored(t: Test, node: RealNode): Promise<void> {
  const found = await untilSo(
    () =>
      node.core.rows<{ protocol: string; event_type: string; ip: string }>(
        `SELECT protocol, event_type, any(toString(ip_address)) AS ip FROM session_events
         GROUP BY protocol, event_type ORDER BY protocol, event_type`,
      ),
    (events) => events.length >= 8,
  );
  t.equal(found.length, 8, 'users of four protocols came online and went offline');
  for (const { protocol, event_type, ip } of found) t.comment(`  ${protocol} ${event_type} ${ip}`);
}

t.test('a real node: Core stores what Xray counts, and who is removed is cut off', async (t) => {
  const node = await startRealNode(t);
  const first = await node.untilApplied(1);
  node.proxy = await node.agent.proxy();
  t.comment(`revision ${first.applied} applied; ${xray} runs as process ${node.proxy}`);
  await everyLinkMovesAKnownSize(t, node);
  await countedDuringADownload(t, node);
  const going = node.links.map(({ name }) => name).filter((name) => name.endsWith('-b'));
  const limited = ['reality-a', 'vision-a', 'shadowsocks-a'];
  await limitDuringADownload(t, node, { limited, going });
  await agentDies(t, node);
  await coreDies(t, node);
  await changesWithoutARestart(t, node);
  await configurationIsRefused(t, node);
  await restartsWithoutLoss(t, node);
  await proxyDies(t, node);
  // Last, since a client of Hysteria2 takes 30 s to notice that it was cut.
  await limitDuringADownload(t, node, {
    limited: ['hysteria2-b'],
    going: ['reality-a', 'trojan-a'],
  });
  await sessionsAreStored(t, node);
  node.agent.signal('SIGTERM');
  t.same(await node.agent.ended(), { code: 0, signal: null });
});
