import { randomUUID } from 'node:crypto';
import t from 'tap';
import { createGroup } from '../../src/groups/groups.ts';
import { setProtocolGroups } from '../../src/groups/membership.ts';
import { createNode } from '../../src/nodes/change.ts';
import { showNode } from '../../src/nodes/node-state.ts';
import { addProtocol } from '../../src/settings/protocols.ts';
import { inTransaction } from '../../src/stores/postgres.ts';
import { addTraffic } from '../../src/subscriptions/add-traffic.ts';
import { changeSubscription } from '../../src/subscriptions/change.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { deleteSubscription, deleteUser } from '../../src/subscriptions/delete.ts';
import { expireDue, listResets, resetDue, resetSubscription } from '../../src/subscriptions/due.ts';
import { listEvents, pruneEvents } from '../../src/subscriptions/events.ts';
import { listLinks, readLinks, withoutSecret } from '../../src/subscriptions/links.ts';
import { rotateLink, rotateLinks } from '../../src/subscriptions/rotate.ts';
import { showSubscription } from '../../src/subscriptions/show.ts';
import { createUser, listUsers, renameUser, showUser } from '../../src/subscriptions/users.ts';
import { until } from '../support/api.ts';
import { publishNow } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const options = { registrationSeconds: 60, staleSeconds: 30, offlineSeconds: 90 };
const dayMs = 86_400_000;

// Many queries wait for a connection at once, on a machine that may be busy.
const { pool, redis, prefix } = await openStores(t, { max: 8, connectTimeoutMs: 60_000 });

let userId = 0;
let nodeId = 0;
t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users, subscription_events RESTART IDENTITY CASCADE');
  userId = await createUser(pool, { name: 'alice' });
  const node = { name: 'n', region: 'eu', host: '', ip: '' };
  nodeId = (await createNode(pool, node, options)).nodeId;
  await addProtocol(pool, { nodeId, protocol: 'VLESS', port: 443, settings: {} });
  await addProtocol(pool, { nodeId, protocol: 'TROJAN', port: 444, settings: {} });
});

async function create(given: Partial<Parameters<typeof createSubscription>[1]> = {}) {
  const subscription = { userId, trafficLimitBytes: null, expiresAt: null, ...given };
  return (await createSubscription(pool, subscription)).subscriptionId;
}

function traffic(subscriptionId: number, bytesUp: number, bytesDown = 0) {
  return inTransaction(pool, (client) =>
    addTraffic(client, {
      subscriptionIds: BigUint64Array.of(BigInt(subscriptionId)),
      bytesUp: BigUint64Array.of(BigInt(bytesUp)),
      bytesDown: BigUint64Array.of(BigInt(bytesDown)),
      rows: BigUint64Array.of(1n),
    }),
  );
}

async function kinds(subscriptionId: number): Promise<string[]> {
  const events = await listEvents(pool, { subscriptionId, afterId: 0, rowsMax: 100 });
  return events.map((event) => event.kind);
}

/** Whether the work results in a new revision of the node. */
async function bumps(work: () => Promise<unknown>): Promise<boolean> {
  await publishNow({ pool, redis, prefix });
  const before = (await showNode(pool, nodeId, options)).revision;
  await work();
  await publishNow({ pool, redis, prefix });
  return (await showNode(pool, nodeId, options)).revision > before;
}

/** Moves the subscription's anchor into the past, so that its resets are due. */
async function backdate(subscriptionId: number, period: string, ms: number): Promise<Date> {
  const { rows } = await pool.query<{ anchor_at: Date }>(
    `UPDATE subscriptions SET reset_period = $2, anchor_at = now() - make_interval(secs => $3),
       next_reset_at = now() - make_interval(secs => $3) + CASE $2 WHEN 'day'
         THEN interval '1 day' WHEN 'week' THEN interval '7 days' ELSE interval '1 month' END
     WHERE id = $1 RETURNING anchor_at`,
    [subscriptionId, period, ms / 1_000],
  );
  return rows[0]?.anchor_at ?? new Date(0);
}

t.test('each threshold warns once a period, and the limit takes access', async (t) => {
  const id = await create({ trafficLimitBytes: 1_000 });
  t.notOk(await bumps(() => traffic(id, 799)));
  t.same(await kinds(id), ['created']);
  t.notOk(await bumps(() => traffic(id, 0, 1)), 'a warning changes no configuration');
  t.same(await kinds(id), ['created', 'warning_80']);
  await traffic(id, 100);
  t.same(await kinds(id), ['created', 'warning_80'], 'once');
  await traffic(id, 50);
  t.ok(await bumps(() => traffic(id, 50)));
  t.same(await kinds(id), ['created', 'warning_80', 'warning_95', 'limited']);
  t.match(await listEvents(pool, { subscriptionId: id, afterId: 0, rowsMax: 9 }), [
    { data: { userId, status: 'active' } },
    { data: { usedBytes: 800, limitBytes: 1_000 } },
    { data: { usedBytes: 950, limitBytes: 1_000 } },
    { data: { from: 'active', to: 'limited' } },
  ]);
  await traffic(id, 5_000);
  t.equal((await kinds(id)).length, 4);

  await resetSubscription(pool, id);
  await traffic(id, 2_000);
  t.same((await kinds(id)).slice(4), ['reset', 'activated', 'warning_80', 'warning_95', 'limited']);
  const free = await create();
  await traffic(free, 1_000_000);
  t.same(await kinds(free), ['created'], 'no limit, no warning');
});

t.test('a raised limit gives access back, a lowered one takes it', async (t) => {
  const id = await create({ trafficLimitBytes: 1_000 });
  await traffic(id, 1_500);
  t.ok(await bumps(() => changeSubscription(pool, id, { trafficLimitBytes: 1_600 })));
  t.match(await showSubscription(pool, id), { status: 'active', usedBytes: 1_500 });
  t.notOk(await bumps(() => changeSubscription(pool, id, { trafficLimitBytes: null })));
  t.ok(await bumps(() => changeSubscription(pool, id, { trafficLimitBytes: 1_500 })));
  t.equal((await showSubscription(pool, id)).status, 'limited');
  t.same((await kinds(id)).slice(4), [
    'limit_changed',
    'activated',
    'limit_changed',
    'limit_changed',
    'warning_80',
    'warning_95',
    'limited',
  ]);
  const before = (await kinds(id)).length;
  await changeSubscription(pool, id, { trafficLimitBytes: 1_500 });
  t.equal((await kinds(id)).length, before, 'the same value again records no event');
  await t.rejects(changeSubscription(pool, 99, {}), { code: 'NOT_FOUND' });
});

t.test('an expiry can move, and disabled comes before everything else', async (t) => {
  const past = new Date(Date.now() - 1_000);
  const later = new Date(Date.now() + 600_000);
  const id = await create({ trafficLimitBytes: 100 });
  t.ok(await bumps(() => changeSubscription(pool, id, { expiresAt: past })));
  t.equal((await showSubscription(pool, id)).status, 'expired');
  t.same(await expireDue(pool), [], 'it has expired already');
  t.ok(await bumps(() => changeSubscription(pool, id, { expiresAt: later })));
  t.equal((await showSubscription(pool, id)).status, 'active');
  t.ok(await bumps(() => changeSubscription(pool, id, { disabled: true })));
  t.notOk(await bumps(() => resetSubscription(pool, id)));
  t.equal((await showSubscription(pool, id)).status, 'disabled', 'a reset does not enable it');
  await changeSubscription(pool, id, { expiresAt: past });
  t.equal((await showSubscription(pool, id)).status, 'disabled', 'an expiry does not enable it');
  t.same(await expireDue(pool), []);
  await changeSubscription(pool, id, { expiresAt: null });
  await traffic(id, 200);
  t.equal(
    (await showSubscription(pool, id)).status,
    'disabled',
    'traffic over its limit does not enable it',
  );
  await changeSubscription(pool, id, { disabled: false });
  t.equal(
    (await showSubscription(pool, id)).status,
    'limited',
    'enabling does not remove the limit',
  );
  await resetSubscription(pool, id);
  t.equal((await showSubscription(pool, id)).status, 'active');
  t.same(await kinds(id), [
    'created',
    'expiry_changed',
    'expired',
    'expiry_changed',
    'activated',
    'disabled',
    'reset',
    'expiry_changed',
    'expiry_changed',
    'warning_80',
    'warning_95',
    'enabled',
    'reset',
    'activated',
  ]);
  const born = await create({ expiresAt: past });
  t.equal((await showSubscription(pool, born)).status, 'expired');
  t.notOk(
    await bumps(() => create({ disabled: true })),
    'a disabled subscription changes no configuration',
  );
});

t.test('a reset on schedule gives access back', async (t) => {
  const id = await create({ trafficLimitBytes: 100, resetPeriod: 'day' });
  await traffic(id, 70, 40);
  t.same(await resetDue(pool), [], 'not yet');
  const anchor = await backdate(id, 'day', dayMs + 60_000);
  t.ok(await bumps(() => resetDue(pool)));
  t.match(await showSubscription(pool, id), {
    status: 'active',
    usedBytes: 0,
    trafficBytesUp: 70,
    trafficBytesDown: 40,
    nextResetAt: new Date(anchor.getTime() + 2 * dayMs),
  });
  t.match(await listResets(pool, { subscriptionId: id, rowsMax: 10 }), [
    {
      cause: 'schedule',
      dueAt: new Date(anchor.getTime() + dayMs),
      usedBytesUp: 70,
      usedBytesDown: 40,
    },
  ]);
  t.same(await resetDue(pool), [], 'once');
  t.same((await kinds(id)).slice(-2), ['reset', 'activated']);
  await traffic(id, 99);
  t.match(await showSubscription(pool, id), { status: 'active', usedBytes: 99 });
});

t.test('after three missed periods one reset ends the last of them', async (t) => {
  const id = await create({ resetPeriod: 'week' });
  await traffic(id, 10);
  const anchor = await backdate(id, 'week', 24 * dayMs);
  t.same(await resetDue(pool), [id]);
  t.same(await resetDue(pool), []);
  const resets = await listResets(pool, { subscriptionId: id, rowsMax: 10 });
  t.equal(resets.length, 1);
  t.same(resets[0]?.dueAt, new Date(anchor.getTime() + 21 * dayMs));
  t.same((await showSubscription(pool, id)).nextResetAt, new Date(anchor.getTime() + 28 * dayMs));
});

t.test('an operator resets without moving the calendar, and changes the period', async (t) => {
  const id = await create({ resetPeriod: 'month', anchorAt: new Date('2024-01-31T12:00:00Z') });
  const { nextResetAt } = await showSubscription(pool, id);
  t.equal(nextResetAt?.getUTCHours(), 12);
  await traffic(id, 5);
  await resetSubscription(pool, id);
  t.same((await showSubscription(pool, id)).nextResetAt, nextResetAt);
  t.match(await listResets(pool, { subscriptionId: id, rowsMax: 1 }), [
    { cause: 'operator', dueAt: null, usedBytesUp: 5 },
  ]);
  await changeSubscription(pool, id, { resetPeriod: 'none' });
  t.equal((await showSubscription(pool, id)).nextResetAt, null);
  const anchorAt = new Date(Date.now() + 3 * dayMs);
  await changeSubscription(pool, id, { resetPeriod: 'day', anchorAt });
  t.same((await showSubscription(pool, id)).nextResetAt, anchorAt, 'not before the anchor');
  await t.rejects(resetSubscription(pool, 99), { code: 'NOT_FOUND' });
});

t.test('concurrent settles and resets lose no byte and reset no period twice', async (t) => {
  const ids: number[] = [];
  for (let n = 0; n < 10; n += 1) {
    const id = await create({ trafficLimitBytes: 25, resetPeriod: 'day' });
    await backdate(id, 'day', dayMs + 60_000);
    ids.push(id);
  }
  const addSums = () =>
    inTransaction(pool, (client) =>
      addTraffic(client, {
        subscriptionIds: BigUint64Array.from(ids, BigInt),
        bytesUp: BigUint64Array.from(ids, () => 1n),
        bytesDown: BigUint64Array.from(ids, () => 2n),
        rows: BigUint64Array.from(ids, () => 1n),
      }),
    );
  const works: (() => Promise<unknown>)[] = [];
  for (let n = 0; n < 20; n += 1) works.push(addSums, () => resetDue(pool));
  for (const id of ids) works.push(() => resetSubscription(pool, id));
  await Promise.all(works.map((work) => work()));
  await resetDue(pool);
  for (const id of ids) {
    const shown = await showSubscription(pool, id);
    const resets = await listResets(pool, { subscriptionId: id, rowsMax: 100 });
    t.match(shown, { trafficBytesUp: 20, trafficBytesDown: 40 });
    t.equal(resets.filter((reset) => reset.cause === 'schedule').length, 1);
    const ended = resets.reduce((sum, r) => sum + r.usedBytesUp + r.usedBytesDown, 0);
    t.equal(ended + shown.usedBytes, 60, 'every byte is in one period');
    t.equal(shown.status, shown.usedBytes >= 25 ? 'limited' : 'active');
  }
});

t.test('a moved expiry bumps only nodes whose configuration holds it', async (t) => {
  const id = await create({ expiresAt: new Date('2040-01-01T00:00:00Z') });
  const move = (year: number) => () =>
    changeSubscription(pool, id, { expiresAt: new Date(`${year}-01-01T00:00:00Z`) });
  t.notOk(await bumps(move(2041)), 'VLESS and Trojan do not hold it');
  const settings = { tlsDomain: 'www.example.com' };
  await addProtocol(pool, { nodeId, protocol: 'MTPROTO', port: 445, settings });
  t.ok(await bumps(move(2042)), 'MTProto does');
});

t.test('links: list, rotate one, rotate all', async (t) => {
  const id = await create();
  const before = await readLinks(pool, { subscriptionId: id });
  t.match(before, [{ protocol: 'VLESS', nodeId }, { protocol: 'TROJAN' }]);
  const listed = await listLinks(pool, id);
  t.same(listed, before.map(withoutSecret));
  const [first, second] = before;
  if (first === undefined) throw new Error('it has links');
  t.ok(await bumps(() => rotateLink(pool, { uuid: first.uuid })));
  const after = await readLinks(pool, { subscriptionId: id });
  t.same(await listLinks(pool, id), listed, 'the UUIDs, by which traffic is counted, stay');
  t.not(after[0]?.credential, first.credential);
  t.equal(after[1]?.credential, second?.credential);

  const { nodeProtocolId } = first;
  t.same(await rotateLink(pool, { subscriptionId: id, nodeProtocolId }), listed[0]);
  t.same(await rotateLinks(pool, id), listed);
  t.equal((await pool.query('SELECT FROM subscription_links')).rowCount, 0, 'no row is needed');
  const credentials = [...before, ...after, ...(await readLinks(pool, { subscriptionId: id }))].map(
    (link) => link.credential,
  );
  t.equal(new Set(credentials).size, 5);
  await changeSubscription(pool, id, { disabled: true });
  t.notOk(
    await bumps(() => rotateLinks(pool, id)),
    'a disabled subscription changes no configuration',
  );
  const events = JSON.stringify(
    await listEvents(pool, { subscriptionId: id, afterId: 0, rowsMax: 100 }),
  );
  t.notOk(
    credentials.some((credential) => events.includes(credential)),
    'events hold no credential',
  );
  await t.rejects(rotateLinks(pool, 99), { code: 'NOT_FOUND' });
  await t.rejects(listLinks(pool, 99), { code: 'NOT_FOUND' });
  await t.rejects(rotateLink(pool, { uuid: randomUUID() }), { code: 'NOT_FOUND' });
  await t.rejects(rotateLink(pool, { subscriptionId: id, nodeProtocolId: 99 }), {
    code: 'NOT_FOUND',
    message: /no common group/,
  });
});

t.test('a rotation without links is refused, and keeps the given credential', async (t) => {
  const id = await create({ credential: 'alice-phone' });
  await createGroup(pool, 'without-protocols');
  await changeSubscription(pool, id, { groups: ['without-protocols'] });
  await t.rejects(rotateLinks(pool, id), {
    code: 'INVALID_ARGUMENT',
    message: /has no links.* core subscription set 1 --credential none$/,
  });
  await changeSubscription(pool, id, { groups: ['default'] });
  t.match(await readLinks(pool, { subscriptionId: id }), [{ credential: 'alice-phone' }, {}]);
});

t.test('a settle does not wait for a user whom an import holds and somebody deletes', async (t) => {
  const id = await create();
  const otherId = await createUser(pool, { name: 'bob' });
  const client = await pool.connect();
  await client.query('BEGIN');
  await client.query('SELECT FROM users WHERE id = $1 FOR KEY SHARE', [otherId]);
  const deletion = deleteUser(pool, otherId, { force: true });
  const waiting = () =>
    pool.query(
      "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    );
  await until(waiting, ({ rowCount }) => rowCount === 1);
  t.match(await traffic(id, 10), { knownRows: 1 });
  t.equal((await waiting()).rowCount, 1, 'the deletion still waits');
  await client.query('COMMIT');
  client.release();
  t.match(await deletion, { userId: otherId });
});

t.test('links from before groups keep their UUIDs when they are rotated', async (t) => {
  const id = await create();
  const [first] = await listLinks(pool, id);
  const uuid = randomUUID();
  await pool.query(
    'INSERT INTO subscription_links (uuid, subscription_id, node_protocol_id) VALUES ($1, $2, $3)',
    [uuid, id, first?.nodeProtocolId],
  );
  const read = async () => (await readLinks(pool, { subscriptionId: id }))[0];
  t.match(await read(), { uuid, credential: uuid });
  await rotateLink(pool, { uuid });
  const once = await read();
  t.equal(once?.uuid, uuid);
  t.not(once?.credential, uuid);
  await rotateLinks(pool, id);
  const twice = await read();
  t.equal(twice?.uuid, uuid);
  t.not(twice?.credential, once?.credential);
});

t.test('groups and the credential of a subscription', async (t) => {
  const id = await create();
  await createGroup(pool, 'premium');
  const [first, second] = await listLinks(pool, id);
  await inTransaction(pool, (client) =>
    setProtocolGroups(client, second?.nodeProtocolId ?? 0, ['premium']),
  );
  t.same(await listLinks(pool, id), [first]);
  t.ok(await bumps(() => changeSubscription(pool, id, { groups: ['premium'] })));
  t.same(await listLinks(pool, id), [second]);
  const same = ['default', 'premium'];
  t.match(await changeSubscription(pool, id, { groups: same }), { groups: same });
  t.same(await listLinks(pool, id), [first, second]);
  t.notOk(await bumps(() => changeSubscription(pool, id, { groups: same })), 'nothing changed');
  await t.rejects(changeSubscription(pool, id, { groups: ['gone', 'premium'] }), {
    code: 'INVALID_ARGUMENT',
    message: 'There is no group gone; there are default, premium',
  });

  t.ok(await bumps(() => changeSubscription(pool, id, { credential: 'alice-phone' })));
  const held = async () =>
    (await readLinks(pool, { subscriptionId: id })).map((link) => link.credential);
  t.same(await held(), ['alice-phone', 'alice-phone']);
  t.match(await showSubscription(pool, id), { hasGivenCredential: true });
  t.notOk(await bumps(() => changeSubscription(pool, id, { credential: 'alice-phone' })));
  const other = await create();
  await t.rejects(changeSubscription(pool, other, { credential: 'alice-phone' }), {
    code: 'INVALID_ARGUMENT',
    message: `The credential for subscription ${other} is that of subscription ${id}, and proxies may take both for one user. Give another one, or rotate that of subscription ${id}`,
  });
  await changeSubscription(pool, id, { credential: null });
  const events = await listEvents(pool, { subscriptionId: id, afterId: 0, rowsMax: 99 });
  t.same(
    events.flatMap(({ kind, data }) => (kind === 'credential_changed' ? [data] : [])),
    [{ isGiven: true }, { isGiven: false }],
  );
  t.equal(new Set(await held()).size, 2);
});

t.test('a limited subscription gets links to protocols that are added meanwhile', async (t) => {
  const id = await create({ trafficLimitBytes: 10 });
  await traffic(id, 10);
  await addProtocol(pool, { nodeId, protocol: 'VLESS', port: 445, settings: {} });
  t.equal((await listLinks(pool, id)).length, 3);
});

t.test('delete a subscription, and a user', async (t) => {
  const id = await create({ resetPeriod: 'day' });
  await resetSubscription(pool, id);
  t.ok(await bumps(() => deleteSubscription(pool, id)));
  await t.rejects(showSubscription(pool, id), { code: 'NOT_FOUND' });
  await t.rejects(deleteSubscription(pool, id), { code: 'NOT_FOUND' });
  t.equal((await pool.query('SELECT FROM subscription_links')).rowCount, 0);
  t.same(await kinds(id), ['created', 'reset', 'deleted'], 'events stay');
  t.equal((await traffic(id, 1)).knownRows, 0, 'later rows count as unknown');

  const active = await create();
  await create({ disabled: true });
  await t.rejects(deleteUser(pool, userId, { force: false }), { code: 'INVALID_ARGUMENT' });
  t.equal((await showUser(pool, userId)).subscriptions, 2, 'nothing was deleted');
  await renameUser(pool, { userId, name: 'bob' });
  t.match(await showUser(pool, userId), { name: 'bob' });
  const deleteAll = async () => {
    t.same(await deleteUser(pool, userId, { force: true }), { userId, subscriptions: 2 });
  };
  t.ok(await bumps(deleteAll));
  t.same(await listUsers(pool, { afterId: 0, rowsMax: 9 }), []);
  t.same(await kinds(active), ['created', 'deleted']);
  await t.rejects(deleteUser(pool, userId, { force: true }), { code: 'NOT_FOUND' });
  await t.rejects(renameUser(pool, { userId, name: 'x' }), { code: 'NOT_FOUND' });
  await t.rejects(showUser(pool, userId), { code: 'NOT_FOUND' });
});

t.test('events are pruned once they are old and handed over', async (t) => {
  await create();
  await create();
  await pool.query("UPDATE subscription_events SET at = now() - interval '3 days'");
  t.equal(await pruneEvents(pool, { days: 2 }), 0, 'not yet handed over');
  await pool.query('UPDATE subscription_events SET pending = false');
  await create();
  t.equal(await pruneEvents(pool, { days: 4 }), 0);
  t.equal(await pruneEvents(pool, { days: 2 }), 2);
  t.match(await listEvents(pool, { afterId: 0, rowsMax: 9 }), [{ subscriptionId: 3 }]);
});
