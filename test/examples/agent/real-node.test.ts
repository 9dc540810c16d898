import { mkdirSync } from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import type { Counters } from '../../../examples/agent/counters.ts';
import { startWorker } from '../../../src/app/worker.ts';
import { createNode } from '../../../src/nodes/change.ts';
import { addProtocol } from '../../../src/settings/protocols.ts';
import { createSubscription } from '../../../src/subscriptions/create.ts';
import { createUser } from '../../../src/subscriptions/users.ts';
import { until } from '../../support/api.ts';
import { startCore } from '../../support/core-process.ts';
import { freePorts } from '../../support/free-port.ts';
import { agentOn, bytesOf, waitMsMax, within } from '../../support/real-node.ts';
import { scratchFolder } from '../../support/scratch-folder.ts';
import { hold, move, startSite } from '../../support/socks-traffic.ts';
import { openDatabases } from '../../support/stores.ts';
import { type ClientLink, makeCertificate, startV2rayClient } from '../../support/v2ray.ts';

const mebibyte = 1_048_576;
const limitBytes = 10_000_000;

/** Waits long, since several real processes work behind each step. */
const untilSo = <T>(ask: () => Promise<T>, isDone: (answer: T) => boolean): Promise<T> =>
  until(ask, isDone, waitMsMax);

interface Subscriber {
  name: string;
  userId: number;
  subscriptionId: number;
  /** By the name of the protocol: `vless-raw` and so on. */
  links: Map<string, ClientLink & { nodeProtocolId: number }>;
}

/** Core on stores of its own: the api is a process that can be stopped, the worker runs in this one. */
async function startCoreOf(t: Test) {
  const stores = await openDatabases(t, { CORE_LOG_LEVEL: 'info' });
  const { log, pool, clickhouse } = stores;
  await stores.migrate();
  const worker = await startWorker(stores.config, log);
  t.teardown(() => worker.close());
  const url = `http://127.0.0.1:${stores.config.http.port}`;
  const ready = () =>
    fetch(`${url}/readyz`).then(
      (response) => response.status,
      () => 0,
    );
  return {
    pool,
    url,
    config: stores.config,
    async serve() {
      const api = startCore(t, ['serve'], stores.environment);
      await untilSo(ready, (status) => status === 200).catch((cause: unknown) => {
        throw new Error(`the api is not ready: ${api.stderr.join('\n')}`, { cause });
      });
      return api;
    },
    rows: async <T>(query: string): Promise<T[]> =>
      (await clickhouse.query({ query, format: 'JSONEachRow' })).json<T>(),
    async counters(): Promise<Record<number, { up: number; down: number }>> {
      const { rows } = await pool.query<{ id: number; up: number; down: number }>(
        `SELECT id, traffic_bytes_up AS up, traffic_bytes_down AS down FROM subscriptions`,
      );
      return Object.fromEntries(rows.map(({ id, up, down }) => [id, { up, down }]));
    },
    async statusOf(subscriptionId: number): Promise<string> {
      const { rows } = await pool.query<{ status: string }>(
        'SELECT status FROM subscriptions WHERE id = $1',
        [subscriptionId],
      );
      return rows[0]?.status ?? '';
    },
    async node(nodeId: number) {
      const { rows } = await pool.query(
        `SELECT revision, change_seq > published_seq AS pending, applied_revision AS applied, sync_status AS sync, error_code AS error
         FROM nodes WHERE id = $1`,
        [nodeId],
      );
      return rows[0] as {
        revision: number;
        pending: boolean;
        applied: number;
        sync: string;
        error: string | null;
      };
    },
  };
}

function total(parts: readonly { up: number; down: number }[]): { up: number; down: number } {
  return {
    up: parts.reduce((sum, part) => sum + part.up, 0),
    down: parts.reduce((sum, part) => sum + part.down, 0),
  };
}

const kindsWith = (tls: { certificateFile: string; keyFile: string }) =>
  [
    { name: 'vless-raw', protocol: 'VLESS', network: 'tcp', settings: {} },
    {
      name: 'vless-ws',
      protocol: 'VLESS',
      network: 'ws',
      path: '/ray',
      settings: { network: 'ws', ws: { path: '/ray' } },
    },
    { name: 'vmess-raw', protocol: 'VMESS', network: 'tcp', settings: {} },
    { name: 'trojan-tls', protocol: 'TROJAN', network: 'tcp', settings: { security: 'tls', tls } },
  ] as const;
type Kind = ReturnType<typeof kindsWith>[number];
type Served = Kind & { nodeProtocolId: number; port: number };

/** Adds a user with a subscription that has a link to every protocol of the node. */
async function subscribe(
  pool: Core['pool'],
  { name, limitBytes }: { name: string; limitBytes: number | null },
  served: readonly Served[],
  takePort: () => number,
): Promise<Subscriber> {
  const userId = await createUser(pool, { name });
  const subscription = { userId, trafficLimitBytes: limitBytes, expiresAt: null };
  const { subscriptionId, links } = await createSubscription(pool, subscription);
  const byName = served.map((kind) => {
    const uuid = links.find((link) => link.nodeProtocolId === kind.nodeProtocolId)?.uuid ?? '';
    const tag = `${name}-${kind.name}`;
    return [kind.name, { ...kind, tag, uuid, socksPort: takePort() }] as const;
  });
  return { name, userId, subscriptionId, links: new Map(byName) };
}

/** Core, a site, a node with four protocols and its agent, and two subscribers with real clients. */
async function startRealNode(t: Test) {
  const folder = scratchFolder(t);
  const core = await startCoreOf(t);
  const { pool } = core;
  const api = await core.serve();
  const sitePort = await startSite(t);
  const kinds = kindsWith(await makeCertificate(folder));
  const ports = await freePorts(kinds.length * 3 + 2);
  const takePort = (): number => ports.pop() as number;
  const node = { name: 'n', region: 'eu', host: '', ip: '' };
  const { nodeId, code } = await createNode(pool, node, core.config.nodes);
  const served: Served[] = [];
  for (const kind of kinds) {
    const { protocol, settings } = kind;
    const port = takePort();
    const added = await addProtocol(pool, { nodeId, protocol, port, settings });
    served.push({ ...kind, ...added, port });
  }
  const limited = await subscribe(pool, { name: 'limited', limitBytes }, served, takePort);
  const free = await subscribe(pool, { name: 'free', limitBytes: null }, served, takePort);
  const subscribers = [limited, free];
  const links = subscribers.flatMap((who) => [...who.links.values()]);
  await startV2rayClient(t, folder, links);
  const dataDir = path.join(folder, 'agent');
  const agent = agentOn(t, { dataDir, coreUrl: core.url, apiPort: takePort(), code });
  agent.start();
  const way = (who: Subscriber, name: string) => ({
    socksPort: who.links.get(name)?.socksPort ?? 0,
    sitePort,
  });
  /** Waits until the node runs this revision or a later one. */
  const untilApplied = (revision: number) =>
    untilSo(
      () => core.node(nodeId),
      (shown) =>
        shown.applied >= revision &&
        shown.applied === shown.revision &&
        // The worker bumps it once more for changes of the same second.
        !shown.pending &&
        shown.sync === 'synced',
    );
  const proxy = 0;
  return {
    folder,
    core,
    api,
    agent,
    nodeId,
    takePort,
    kinds,
    links,
    limited,
    free,
    subscribers,
    way,
    untilApplied,
    proxy,
  };
}
type Core = Awaited<ReturnType<typeof startCoreOf>>;
/** `api` and `proxy` are the processes that run now; the steps replace them. */
type RealNode = Awaited<ReturnType<typeof startRealNode>>;

/** Waits until Core's counters equal the proxy's figures, and compares the rows with them, too. */
async function expectSame(t: Test, node: RealNode, when: string): Promise<void> {
  const { core, agent, nodeId, subscribers } = node;
  const figures = await agent.figures();
  const perSubscription = subscribers.map((who) => ({
    subscriptionId: who.subscriptionId,
    ...total([...who.links.values()].map((link) => bytesOf(figures, `user>>>${link.uuid}`))),
  }));
  await untilSo(core.counters, (counters) =>
    perSubscription.every(({ subscriptionId, up, down }) => {
      const counter = counters[subscriptionId];
      return counter?.up === up && counter.down === down;
    }),
  );
  const rows = await core.rows<{ key: string; up: string; down: string; rows: string }>(
    `SELECT concat(toString(subscription_id), ' ', toString(node_protocol_id)) AS key,
       sum(bytes_up) AS up, sum(bytes_down) AS down, count() AS rows
     FROM usage WHERE node_id = ${nodeId} GROUP BY key`,
  );
  t.comment(`${when}: bytes up and down, as v2ray counted and as Core's rows sum up`);
  for (const who of subscribers) {
    for (const link of who.links.values()) {
      const said = bytesOf(figures, `user>>>${link.uuid}`);
      const row = rows.find(({ key }) => key === `${who.subscriptionId} ${link.nodeProtocolId}`);
      const stored = { up: Number(row?.up ?? 0), down: Number(row?.down ?? 0) };
      t.comment(
        `  ${link.tag.padEnd(20)} v2ray ${said.up} ${said.down}, Core ${stored.up} ${stored.down} in ${row?.rows ?? 0} rows`,
      );
      t.same(stored, said, `${when}: ${link.tag} to the byte`);
    }
  }
  for (const { subscriptionId, up, down } of perSubscription) {
    t.comment(`  counter of subscription ${subscriptionId}: ${up} ${down}`);
  }
  t.equal(agent.refused(), 0, 'no post was refused');
}

async function everyLinkMovesAKnownSize(t: Test, node: RealNode): Promise<void> {
  const { agent, kinds, links, subscribers, way } = node;
  for (const who of subscribers) {
    for (const { name } of kinds) await move(way(who, name), { up: 65_536, down: mebibyte });
  }
  await expectSame(t, node, 'every link moved 64 KiB up and 1 MiB down');
  const figures: Counters = await agent.figures();
  for (const link of links) {
    const said = bytesOf(figures, `user>>>${link.uuid}`);
    t.ok(said.up >= 65_536 && said.down >= mebibyte, `${link.tag}: at least the payload`);
  }
}

/** The agent dies in the middle of a transfer, the proxy goes on, and the next agent takes it over. */
async function agentDies(t: Test, node: RealNode): Promise<void> {
  const { agent, free, limited, way } = node;
  await move(way(free, 'vless-raw'), { up: 0, down: 8 * mebibyte }, () => agent.kill());
  await move(way(limited, 'vless-ws'), { up: 100_000, down: mebibyte });
  t.equal(await agent.proxy(), node.proxy, 'the proxy outlived its agent');
  agent.start();
  await agent.said(/took over the running proxy/);
  await expectSame(t, node, 'the agent was killed during 8 MiB');
}

/** The proxy dies, the agent starts it again, and Core gets the usage of both processes. */
async function proxyDies(t: Test, node: RealNode): Promise<void> {
  const { agent, free, way } = node;
  await agent.retire();
  process.kill(node.proxy, 'SIGKILL');
  node.proxy = await agent.proxy(node.proxy);
  await agent.said(/the proxy runs/);
  await move(way(free, 'trojan-tls'), { up: 1, down: mebibyte });
  await expectSame(t, node, 'the proxy was killed');
}

/** Core is away: the agent stores its posts, and delivers each once when Core is back. */
async function coreIsAway(t: Test, node: RealNode): Promise<void> {
  const { core, agent, free, limited, way } = node;
  node.api.signal('SIGTERM');
  await node.api.exited;
  await move(way(free, 'vless-ws'), { up: mebibyte, down: 3 * mebibyte });
  await untilSo(
    async () => agent.storedPosts(),
    (posts) => posts > 0,
  );
  t.comment(`Core is away: the agent has stored ${agent.storedPosts()} posts`);
  await agent.kill();
  agent.start();
  await move(way(limited, 'trojan-tls'), { up: 10, down: mebibyte });
  node.api = await core.serve();
  await expectSame(t, node, 'Core was away');
  await untilSo(
    async () => agent.storedPosts(),
    (posts) => posts === 0,
  );
}

/** A new configuration restarts the proxy. Before that, the agent reads what the proxy has counted. */
async function configurationChanges(t: Test, node: RealNode): Promise<void> {
  const { core, agent, nodeId, free, way, untilApplied } = node;
  await agent.retire();
  const before = await core.node(nodeId);
  await createSubscription(core.pool, {
    userId: free.userId,
    trafficLimitBytes: null,
    expiresAt: null,
  });
  await untilApplied(before.revision + 1);
  node.proxy = await agent.proxy(node.proxy);
  await move(way(free, 'vless-raw'), { up: 1_000, down: mebibyte });
  await expectSame(t, node, 'a new configuration');
}

/**
 * v2ray refuses a configuration while its certificate is missing, and takes it once the file is there.
 */
async function configurationIsRefused(t: Test, node: RealNode): Promise<void> {
  const { core, agent, nodeId, folder, takePort, untilApplied } = node;
  await agent.retire();
  const lateFolder = path.join(folder, 'late');
  const certificateFile = path.join(lateFolder, 'certificate.pem');
  const keyFile = path.join(lateFolder, 'key.pem');
  await addProtocol(core.pool, {
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
  t.equal(await agent.proxy(), node.proxy, 'the old configuration goes on');
  mkdirSync(lateFolder);
  await makeCertificate(lateFolder);
  await untilApplied(refused.revision);
  node.proxy = await agent.proxy(node.proxy);
  t.comment(`revision ${refused.revision} was refused, then applied`);
}

/** Traffic crosses the limit: the links leave the configuration, and their sessions end. */
async function limitIsCrossed(t: Test, node: RealNode): Promise<void> {
  const { core, agent, nodeId, kinds, limited, free, way, untilApplied } = node;
  const held = await within(hold(way(limited, 'vless-raw')), 'a session is held');
  agent.signal('SIGSTOP');
  await move(way(limited, 'vless-raw'), { up: 0, down: 5 * mebibyte });
  await agent.retire();
  const revision = (await core.node(nodeId)).revision;
  agent.signal('SIGCONT');
  await untilSo(
    () => core.statusOf(limited.subscriptionId),
    (status) => status === 'limited',
  );
  await within(held.closed, 'the held session is closed');
  const after = await untilApplied(revision + 1);
  t.comment(`the limit of ${limitBytes} is crossed: revision ${after.applied} is applied`);
  await agent.proxy(node.proxy);
  await Promise.all(
    kinds.map(({ name }) =>
      t.rejects(move(way(limited, name), { up: 0, down: 1 }), `${name}: no connection`),
    ),
  );
  await move(way(free, 'vless-raw'), { up: 0, down: mebibyte });
  await expectSame(t, node, 'after the limit');
}

async function outboundsAndSessionsAreStored(t: Test, node: RealNode): Promise<void> {
  const { core, agent, nodeId } = node;
  const outbound = bytesOf(await agent.figures(), 'outbound>>>direct');
  const stored = async () => {
    const { rows } = await core.pool.query<{ up: number; down: number }>(
      `SELECT traffic_bytes_up AS up, traffic_bytes_down AS down FROM node_outbounds
       WHERE node_id = $1 AND tag = 'direct'`,
      [nodeId],
    );
    return rows[0];
  };
  // Outbounds have a stream of their own, which may settle later than usage.
  const settled = await untilSo(stored, (row) => Number(row?.down) >= outbound.down);
  t.same(settled, outbound, 'the outbound, too, to the byte');
  const online = await untilSo(
    () =>
      core.rows<{ user_id: string; protocol: string; event_type: string }>(
        'SELECT DISTINCT user_id, protocol, event_type FROM session_events',
      ),
    (events) => events.length >= 12,
  );
  t.equal(online.length, 12, 'two users on three protocols came online and went offline');
}

t.test('a real node: Core stores what v2ray counts, and a limit takes effect', async (t) => {
  const node = await startRealNode(t);
  const first = await node.untilApplied(1);
  node.proxy = await node.agent.proxy();
  t.comment(`revision ${first.applied} applied; v2ray runs as process ${node.proxy}`);
  await everyLinkMovesAKnownSize(t, node);
  await agentDies(t, node);
  await proxyDies(t, node);
  await coreIsAway(t, node);
  await configurationChanges(t, node);
  await configurationIsRefused(t, node);
  await limitIsCrossed(t, node);
  await outboundsAndSessionsAreStored(t, node);
  node.agent.signal('SIGTERM');
  t.same(await node.agent.ended(), { code: 0, signal: null });
});
