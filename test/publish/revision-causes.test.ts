import t from 'tap';
import { createNode } from '../../src/nodes/change.ts';
import { publishForReader } from '../../src/publish/publish.ts';
import { listRevisions } from '../../src/publish/revisions.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import { inTransaction } from '../../src/stores/postgres.ts';
import { addTraffic } from '../../src/subscriptions/add-traffic.ts';
import { changeSubscription } from '../../src/subscriptions/change.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { deleteSubscription, deleteUser } from '../../src/subscriptions/delete.ts';
import { expireDue, resetSubscription } from '../../src/subscriptions/due.ts';
import { importSubscriptions } from '../../src/subscriptions/import.ts';
import { listLinks } from '../../src/subscriptions/links.ts';
import { rotateLink, rotateLinks } from '../../src/subscriptions/rotate.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { publishNow } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const options = { registrationSeconds: 60, staleSeconds: 30, offlineSeconds: 90 };
const stores = await openStores(t, { max: 4 });
const { pool } = stores;

let userId = 0;
let nodeId = 0;
t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users, subscription_events RESTART IDENTITY CASCADE');
  userId = await createUser(pool, { name: 'alice' });
  nodeId = (await createNode(pool, { name: 'n', region: '', host: 'h', ip: '' }, options)).nodeId;
  await addProtocol(pool, { nodeId, protocol: 'VLESS', port: 443, settings: {} });
  await publishNow(stores);
});

async function newestCauses(): Promise<string[] | undefined> {
  return (await listRevisions(pool, nodeId))[0]?.causes;
}

/** Does this work, expects one revision from it, and returns its causes. */
async function causesOf(work: () => Promise<unknown>): Promise<string[] | undefined> {
  await publishNow(stores);
  const before = (await listRevisions(pool, nodeId)).length;
  await work();
  await publishNow(stores);
  t.equal((await listRevisions(pool, nodeId)).length, before + 1, 'one revision');
  return newestCauses();
}

async function create(given: Partial<Parameters<typeof createSubscription>[1]> = {}) {
  const subscription = { userId, trafficLimitBytes: null, expiresAt: null, ...given };
  return (await createSubscription(pool, subscription)).subscriptionId;
}

function settle(subscriptionIds: number[], bytes: number) {
  const sums = (value: number) => BigUint64Array.from(subscriptionIds, () => BigInt(value));
  return inTransaction(pool, (client) =>
    addTraffic(client, {
      subscriptionIds: BigUint64Array.from(subscriptionIds, BigInt),
      bytesUp: sums(bytes),
      bytesDown: sums(0),
      rows: sums(1),
    }),
  );
}

t.test('each change of a subscription names its cause', async (t) => {
  t.same(await causesOf(() => create()), ['subscription 1 created']);
  const [link] = await listLinks(pool, 1);
  t.same(await causesOf(() => rotateLink(pool, { uuid: link?.uuid ?? '' })), [
    'link of subscription 1 rotated',
  ]);
  t.same(await causesOf(() => rotateLinks(pool, 1)), ['links of subscription 1 rotated']);
  const set = (change: Parameters<typeof changeSubscription>[2]) => () =>
    changeSubscription(pool, 1, change);
  t.same(await causesOf(set({ disabled: true })), ['subscription 1 became disabled']);
  t.same(await causesOf(set({ disabled: false })), ['subscription 1 became active']);
  const mtproto = { nodeId, port: 8443, settings: { tlsDomain: 'www.example.com' } };
  t.match(await causesOf(() => addProtocol(pool, { ...mtproto, protocol: 'MTPROTO' })), [
    /^protocol \d+ added$/,
  ]);
  t.same(await causesOf(set({ expiresAt: new Date('2040-01-01T00:00:00Z') })), [
    'expiry of subscription 1 changed',
  ]);
  const both = async () => {
    await create();
    await deleteSubscription(pool, 1);
  };
  t.same(await causesOf(both), ['subscription 2 created', 'subscription 1 deleted']);
  t.same(await causesOf(() => deleteUser(pool, userId, { force: true })), ['user 1 deleted']);
});

t.test('limits, resets and expiry name one subscription, or several together', async (t) => {
  const ids = [await create({ trafficLimitBytes: 100 }), await create({ trafficLimitBytes: 100 })];
  await create();
  t.same(await causesOf(() => settle(ids.slice(0, 1), 100)), ['subscription 1 became limited']);
  t.same(await causesOf(() => resetSubscription(pool, 1)), ['subscription 1 became active']);
  t.same(await causesOf(() => settle(ids, 100)), ['subscriptions became limited']);
  await pool.query("UPDATE subscriptions SET expires_at = now() - interval '1 second'");
  t.same(await causesOf(() => expireDue(pool)), ['subscription 3 became expired']);
});

t.test('an import is one cause', async (t) => {
  const rows = ['bob', 'carol'].map((name, at) => ({
    line: at + 1,
    subscription: { user: { name }, trafficLimitBytes: null, expiresAt: null },
  }));
  async function* open() {
    yield* rows;
  }
  t.same(await causesOf(() => importSubscriptions(pool, open, { keepGoing: false })), [
    'subscriptions imported',
  ]);
});

t.test('a new Core that renders other bytes is the cause', async (t) => {
  // As if an earlier Core had rendered the same rows to other bytes.
  await pool.query("UPDATE nodes SET content_hash = '\\x00'");
  await publishForReader(stores, nodeId);
  t.same(await newestCauses(), ['rendered differently by this version of Core']);
});
