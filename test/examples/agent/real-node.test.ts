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
import { openDatabases } from '../../support/stores.ts';
import { hold, move, startSite } from '../../support/traffic.ts';
import {
  type ClientLink,
  makeCertificate,
  scratchFolder,
  startV2rayClient,
} from '../../support/v2ray.ts';

const mebibyte = 1_048_576;
const limitBytes = 10_000_000;

const untilSo = <T>(ask: () => Promise<T>, isDone: (answer: T) => boolean): Promise<T> =>
  until(ask, isDone, waitMsMax);

interface Subscriber {
  name: string;
  userId: number;
  subscriptionId: number;
  /** By the name of the protocol: `vless-raw` and so on. */
  links: Map<string, ClientLink & { nodeProtocolId: number }>;
}

/** Core on stores of its own: the api as a process that can be stopped, the worker in this one. */
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

t.test('a real node: what v2ray counts is what Core stores, and a limit bites', async (t) => {
  const folder = scratchFolder(t);
  const core = await startCoreOf(t);
  const { pool } = core;
  let api = await core.serve();
  const sitePort = await startSite(t);

  const tls = await makeCertificate(folder);
  const kinds = [
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
  const ports = await freePorts(kinds.length * 3 + 2);
  const takePort = (): number => ports.pop() as number;
  const issued = await createNode(
    pool,
    { name: 'n', region: 'eu', host: '', ip: '' },
    core.config.nodes,
  );
  const { nodeId, code } = issued;
  const served: ((typeof kinds)[number] & { nodeProtocolId: number; port: number })[] = [];
  for (const kind of kinds) {
    const { protocol, settings } = kind;
    const port = takePort();
    const added = await addProtocol(pool, { nodeId, protocol, port, settings });
    served.push({ ...kind, ...added, port });
  }
  const subscribe = async (name: string, limit: number | null): Promise<Subscriber> => {
    const userId = await createUser(pool, { name });
    const { subscriptionId, links } = await createSubscription(pool, {
      userId,
      trafficLimitBytes: limit,
      expiresAt: null,
    });
    const byName = served.map((kind) => {
      const uuid = links.find((link) => link.nodeProtocolId === kind.nodeProtocolId)?.uuid ?? '';
      const tag = `${name}-${kind.name}`;
      return [kind.name, { ...kind, tag, uuid, socksPort: takePort() }] as const;
    });
    return { name, userId, subscriptionId, links: new Map(byName) };
  };
  const limited = await subscribe('limited', limitBytes);
  const free = await subscribe('free', null);
  const links = [limited, free].flatMap((who) => [...who.links.values()]);
  await startV2rayClient(t, folder, links);
  const way = (who: Subscriber, name: string) => ({
    socksPort: who.links.get(name)?.socksPort ?? 0,
    sitePort,
  });

  const dataDir = path.join(folder, 'agent');
  const agent = agentOn(t, { dataDir, coreUrl: core.url, apiPort: takePort(), code });
  agent.start();

  /** Waits until Core's counters are the proxy's figures, and holds the rows against them, too. */
  const expectSame = async (when: string, figures: Counters): Promise<void> => {
    const perSubscription = [limited, free].map((who) => ({
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
    for (const who of [limited, free]) {
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
  };
  const untilApplied = (revision: number) =>
    untilSo(
      () => core.node(nodeId),
      (node) =>
        node.applied >= revision &&
        node.applied === node.revision &&
        // The worker bumps it once more for changes of the same second.
        !node.pending &&
        node.sync === 'synced',
    );
  const payload = new Map<string, { up: number; down: number }>();
  const transfer = async (
    who: Subscriber,
    name: string,
    bytes: { up: number; down: number },
    onData?: () => Promise<void>,
  ): Promise<void> => {
    await move(way(who, name), bytes, onData);
    const uuid = who.links.get(name)?.uuid ?? '';
    payload.set(uuid, total([payload.get(uuid) ?? { up: 0, down: 0 }, bytes]));
  };

  const first = await untilApplied(1);
  let proxy = await agent.proxy();
  t.comment(`revision ${first.applied} applied; v2ray runs as process ${proxy}`);

  // Every link moves a known size.
  for (const who of [limited, free]) {
    for (const { name } of kinds) await transfer(who, name, { up: 65_536, down: mebibyte });
  }
  const figures = await agent.figures();
  await expectSame('every link moved 64 KiB up and 1 MiB down', figures);
  for (const link of links) {
    const said = bytesOf(figures, `user>>>${link.uuid}`);
    t.ok(said.up >= 65_536 && said.down >= mebibyte, `${link.tag}: at least the payload`);
  }

  // The agent dies in the middle of a transfer, the proxy goes on, the next agent takes it over.
  await transfer(free, 'vless-raw', { up: 0, down: 8 * mebibyte }, () => agent.kill());
  await transfer(limited, 'vless-ws', { up: 100_000, down: mebibyte });
  t.equal(await agent.proxy(), proxy, 'the proxy outlived its agent');
  agent.start();
  await agent.said(/took over the running proxy/);
  await expectSame('the agent was killed during 8 MiB', await agent.figures());

  // The proxy dies; the agent starts it again, and Core hears of both.
  await agent.retire();
  process.kill(proxy, 'SIGKILL');
  proxy = await agent.proxy(proxy);
  await agent.said(/the proxy runs/);
  await transfer(free, 'trojan-tls', { up: 1, down: mebibyte });
  await expectSame('the proxy was killed', await agent.figures());

  // Core is away; the agent spools, and delivers each post once when it is back.
  api.signal('SIGTERM');
  await api.exited;
  await transfer(free, 'vless-ws', { up: mebibyte, down: 3 * mebibyte });
  await untilSo(
    async () => agent.spooled(),
    (posts) => posts > 0,
  );
  t.comment(`Core is away: ${agent.spooled()} posts in the spool`);
  await agent.kill();
  agent.start();
  await transfer(limited, 'trojan-tls', { up: 10, down: mebibyte });
  api = await core.serve();
  await expectSame('Core was away', await agent.figures());
  await untilSo(
    async () => agent.spooled(),
    (posts) => posts === 0,
  );

  // A new configuration restarts the proxy; what it had counted is read before.
  await agent.retire();
  const before = await core.node(nodeId);
  await createSubscription(pool, {
    userId: free.userId,
    trafficLimitBytes: null,
    expiresAt: null,
  });
  await untilApplied(before.revision + 1);
  proxy = await agent.proxy(proxy);
  await transfer(free, 'vless-raw', { up: 1_000, down: mebibyte });
  await expectSame('a new configuration', await agent.figures());

  // A configuration that v2ray refuses is not applied; once its certificate is there, it is.
  await agent.retire();
  const lateFolder = path.join(folder, 'late');
  await addProtocol(pool, {
    nodeId,
    protocol: 'TROJAN',
    port: takePort(),
    settings: {
      security: 'tls',
      tls: {
        certificateFile: path.join(lateFolder, 'certificate.pem'),
        keyFile: path.join(lateFolder, 'key.pem'),
      },
    },
  });
  const refused = await untilSo(
    () => core.node(nodeId),
    (node) => node.sync === 'failed',
  );
  t.equal(refused.error, 'CONFIG_REFUSED');
  t.equal(await agent.proxy(), proxy, 'the old configuration goes on');
  mkdirSync(lateFolder);
  await makeCertificate(lateFolder);
  await untilApplied(refused.revision);
  proxy = await agent.proxy(proxy);
  t.comment(`revision ${refused.revision} was refused, then applied`);

  // The limit is crossed: out of the config, sessions closed, the next connection fails.
  const held = await within(hold(way(limited, 'vless-raw')), 'a session is held');
  agent.signal('SIGSTOP');
  await transfer(limited, 'vless-raw', { up: 0, down: 5 * mebibyte });
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
  await agent.proxy(proxy);
  await Promise.all(
    kinds.map(({ name }) =>
      t.rejects(move(way(limited, name), { up: 0, down: 1 }), `${name}: no connection`),
    ),
  );
  await transfer(free, 'vless-raw', { up: 0, down: mebibyte });
  await expectSame('after the limit', await agent.figures());

  const outbound = bytesOf(await agent.figures(), 'outbound>>>direct');
  const stored = async () => {
    const { rows } = await pool.query<{ up: number; down: number }>(
      `SELECT traffic_bytes_up AS up, traffic_bytes_down AS down FROM node_outbounds
       WHERE node_id = $1 AND tag = 'direct'`,
      [nodeId],
    );
    return rows[0];
  };
  // Outbounds are a stream of their own, which may settle later than usage.
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

  agent.signal('SIGTERM');
  t.same(await agent.ended(), { code: 0, signal: null });
});
