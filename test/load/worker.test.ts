import { Queue } from 'bullmq';
import t from 'tap';
import { startWorker } from '../../src/app/worker.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import { createClickHouse } from '../../src/stores/clickhouse.ts';
import { migrateClickHouse } from '../../src/stores/migrate.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { get, post, registerTestNode, startTestApi, until, usageEntry } from '../support/api.ts';

t.test('from a post to a row and a counter, and what a limit does', async (t) => {
  const api = await startTestApi(t);
  await migrateClickHouse(api.config.stores.clickhouseUrl, api.pool, api.log);
  const clickhouse = createClickHouse(api.config.stores.clickhouseUrl);
  t.teardown(() => clickhouse.close());
  const worker = await startWorker(api.config, api.log);
  t.teardown(() => worker.close());
  const node = await registerTestNode(api);
  const protocol = await addProtocol(api.pool, {
    nodeId: node.nodeId,
    protocol: 'VLESS',
    port: 443,
    settings: {},
  });
  const userId = await createUser(api.pool, { name: 'u' });
  const subscription = await createSubscription(api.pool, {
    userId,
    trafficLimitBytes: 5_000,
    expiresAt: null,
  });
  const { subscriptionId } = subscription;
  const uuid = subscription.links[0]?.uuid ?? '';
  const config = () => get(api, '/node/config/latest', { node });
  const withLink = await until(config, (reply) => reply.text.includes(uuid));
  t.same(withLink.json['clientMap'], { [uuid]: { userId, subscriptionId } });
  t.equal(
    (await post(api, '/node/heartbeat', { revision: withLink.json['revision'] }, { node })).json[
      'needSync'
    ],
    false,
  );

  const entry = usageEntry({
    subscriptionId,
    userId,
    nodeProtocolId: protocol.nodeProtocolId,
    bytesUp: 1,
    bytesDown: 2,
  });
  t.equal((await post(api, '/node/usage', { entries: [entry] }, { node })).status, 200);
  const counter = async () =>
    (
      await api.pool.query(
        'SELECT traffic_bytes_up AS up, traffic_bytes_down AS down, status FROM subscriptions',
      )
    ).rows[0];
  t.same(await until(counter, (row) => row.down > 0), { up: 1, down: 2, status: 'active' });
  const rows = await clickhouse.query({
    query: 'SELECT bytes_up, bytes_down FROM usage',
    format: 'JSONEachRow',
  });
  t.same(await rows.json(), [{ bytes_up: 1, bytes_down: 2 }]);

  const heavy = usageEntry({ subscriptionId, userId, bytesUp: 0, bytesDown: 5_000 });
  t.equal((await post(api, '/node/usage', { entries: [heavy] }, { node })).status, 200);
  await until(counter, (row) => row.status === 'limited');
  const without = await until(config, (reply) => !reply.text.includes(uuid));
  t.ok(Number(without.json['revision']) > Number(withLink.json['revision']));
  const beat = await post(
    api,
    '/node/heartbeat',
    { revision: withLink.json['revision'] },
    { node },
  );
  t.equal(beat.json['needSync'], true);

  await api.pool.query(
    `UPDATE subscriptions SET reset_period = 'day', anchor_at = now() - interval '25 hours',
       next_reset_at = now() - interval '1 hour'`,
  );
  await until(config, (reply) => reply.text.includes(uuid));
  t.same(await counter(), { up: 1, down: 5_002, status: 'active' }, 'a reset lets it in again');
  const pending = async () =>
    (await api.pool.query('SELECT FROM subscription_events WHERE pending')).rowCount;
  t.equal(await until(pending, (count) => count === 0), 0, 'events go on');

  const queue = new Queue('load', {
    connection: { url: api.config.stores.redisUrl },
    prefix: `{${api.config.stores.redisPrefix}}:bull`,
  });
  t.teardown(() => queue.close());
  t.equal(await queue.getFailedCount(), 0);
  t.equal((await queue.getJobSchedulers()).length, 3, 'one a stream');
});

t.test('an expired subscription leaves the config', async (t) => {
  const api = await startTestApi(t);
  await migrateClickHouse(api.config.stores.clickhouseUrl, api.pool, api.log);
  const worker = await startWorker(api.config, api.log);
  t.teardown(() => worker.close());
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
