import { Queue } from 'bullmq';
import t, { type Test } from 'tap';
import { addProtocol } from '../../src/settings/protocols.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import {
  get,
  post,
  registerTestNode,
  startTestApi,
  type TestApi,
  until,
  usageEntry,
} from '../support/api.ts';
import { commandLine } from '../support/cli.ts';
import { startSpool } from '../support/spool.ts';
import { startLoadWithStoppedClock, startTestWorker } from '../support/worker.ts';

/** An api and a worker, with a node, a protocol on it and a subscription limited to 5,000 bytes. */
async function startFleet(t: Test) {
  const api = await startTestApi(t);
  const clickhouse = await startTestWorker(t, api);
  const node = await registerTestNode(api);
  const { nodeProtocolId } = await addProtocol(api.pool, {
    nodeId: node.nodeId,
    protocol: 'VLESS',
    port: 443,
    settings: {},
  });
  const userId = await createUser(api.pool, { name: 'u' });
  const { subscriptionId, links } = await createSubscription(api.pool, {
    userId,
    trafficLimitBytes: 5_000,
    expiresAt: null,
  });
  const counter = async () =>
    (
      await api.pool.query(
        'SELECT traffic_bytes_up AS up, traffic_bytes_down AS down, status FROM subscriptions',
      )
    ).rows[0];
  return {
    api,
    clickhouse,
    ids: { userId, subscriptionId, nodeProtocolId },
    uuid: links[0]?.uuid ?? '',
    config: () => get(api, '/node/config/latest', { node }),
    needSync: async (revision: unknown) =>
      (await post(api, '/node/heartbeat', { revision }, { node })).json['needSync'],
    sendUsage: async (entry: Record<string, unknown>) =>
      (await post(api, '/node/usage', { entries: [usageEntry(entry)] }, { node })).status,
    counter,
  };
}

t.test('from a post to a row and a counter, and what a limit does', async (t) => {
  const fleet = await startFleet(t);
  const { api, uuid, config, counter } = fleet;
  const { userId, subscriptionId, nodeProtocolId } = fleet.ids;
  const withLink = await until(config, (reply) => reply.text.includes(uuid));
  t.same(withLink.json['clientMap'], { [uuid]: { userId, subscriptionId } });
  t.equal(await fleet.needSync(withLink.json['revision']), false);

  const entry = { subscriptionId, userId, nodeProtocolId, bytesUp: 1, bytesDown: 2 };
  t.equal(await fleet.sendUsage(entry), 200);
  t.same(await until(counter, (row) => row.down > 0), { up: 1, down: 2, status: 'active' });
  const rows = await fleet.clickhouse.query({
    query: 'SELECT bytes_up, bytes_down FROM usage',
    format: 'JSONEachRow',
  });
  t.same(await rows.json(), [{ bytes_up: 1, bytes_down: 2 }]);

  t.equal(await fleet.sendUsage({ subscriptionId, userId, bytesUp: 0, bytesDown: 5_000 }), 200);
  await until(counter, (row) => row.status === 'limited');
  const without = await until(config, (reply) => !reply.text.includes(uuid));
  t.ok(Number(without.json['revision']) > Number(withLink.json['revision']));
  t.equal(await fleet.needSync(withLink.json['revision']), true);

  await api.pool.query(
    `UPDATE subscriptions SET reset_period = 'day', anchor_at = now() - interval '25 hours',
       next_reset_at = now() - interval '1 hour'`,
  );
  await until(config, (reply) => reply.text.includes(uuid));
  t.same(await counter(), { up: 1, down: 5_002, status: 'active' }, 'a reset lets it in again');
  const pending = async () =>
    (await api.pool.query('SELECT FROM subscription_events WHERE pending')).rowCount;
  t.equal(await until(pending, (count) => count === 0), 0, 'the events were passed on');
  await checkQueue(t, api);
});

/** BullMQ has a scheduler for each usual stream, and no job has failed. */
async function checkQueue(t: Test, { config }: TestApi): Promise<void> {
  const queue = new Queue('load', {
    connection: { url: config.stores.redisUrl },
    prefix: `{${config.stores.redisPrefix}}:bull`,
  });
  t.teardown(() => queue.close());
  t.equal(await queue.getFailedCount(), 0);
  t.equal((await queue.getJobSchedulers()).length, 3, 'one for each stream');
}

t.test('an expired subscription leaves the config', async (t) => {
  const api = await startTestApi(t);
  await startTestWorker(t, api);
  const node = await registerTestNode(api);
  await addProtocol(api.pool, { nodeId: node.nodeId, protocol: 'TROJAN', port: 443, settings: {} });
  const userId = await createUser(api.pool, { name: 'u' });
  const { links } = await createSubscription(api.pool, {
    userId,
    trafficLimitBytes: null,
    expiresAt: new Date(Date.now() + 2_000),
  });
  const uuid = links[0]?.uuid ?? '';
  const config = () => get(api, '/node/config/latest', { node });
  await until(config, (reply) => reply.text.includes(uuid));
  await until(config, (reply) => !reply.text.includes(uuid));
  const { rows } = await api.pool.query('SELECT status FROM subscriptions');
  t.same(rows, [{ status: 'expired' }]);
});

t.test('core segments retry runs a resting stream at once', async (t) => {
  const load = await startSpool(t);
  const { core } = commandLine(load.environment);
  await load.command('ALTER TABLE usage ADD CONSTRAINT c CHECK user_id != 666');
  await startLoadWithStoppedClock(t, load);
  await load.appendUsage([{ userId: 666 }]);
  const listed = async () =>
    JSON.parse((await core('segments', '--json')).stdout) as {
      segmentId: number;
      attempts: number;
      lastError: string | null;
    }[];
  const [segment] = await until(listed, ([found]) => typeof found?.lastError === 'string');
  t.match(segment, { attempts: 1, lastError: /Constraint `c`/ });
  await load.command('ALTER TABLE usage DROP CONSTRAINT c');
  const id = String(segment?.segmentId);
  const retried = await core('segments', 'retry', id, '--json');
  t.match(retried, { exitCode: 0, stderr: '' });
  t.same(JSON.parse(retried.stdout), {
    segmentId: segment?.segmentId,
    stream: `${load.redisPrefix}:{s0}:usage`,
    requested: true,
  });
  await until(listed, (found) => found.length === 0);
  t.same(await load.rows('SELECT count() AS n FROM usage'), [{ n: 1 }]);
  for (const unknown of [id, '1']) {
    t.match(await core('segments', 'retry', unknown), {
      exitCode: 1,
      stdout: '',
      stderr: `core: There is no segment ${unknown} that is not settled\n`,
    });
  }
});
