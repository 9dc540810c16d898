import t from 'tap';
import {
  createGroup,
  listGroups,
  removeGroup,
  renameGroup,
  showGroup,
} from '../../src/groups/groups.ts';
import { changeMembers, type MembersChange } from '../../src/groups/members.ts';
import { createNode, revokeNode } from '../../src/nodes/change.ts';
import { countLinks, linkedNodes } from '../../src/nodes/linked.ts';
import { addProtocol, setProtocol } from '../../src/settings/protocols.ts';
import { changeSubscription } from '../../src/subscriptions/change.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { listEvents } from '../../src/subscriptions/events.ts';
import { listLinks } from '../../src/subscriptions/links.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { marksOf, publishNow } from '../support/publish.ts';
import { openStores } from '../support/stores.ts';

const { pool, redis, prefix } = await openStores(t, { max: 4, connectTimeoutMs: 60_000 });
let userId = 0;
/** Three nodes with a protocol each; the ids of both are 1, 2 and 3. */
const nodeIds: number[] = [];

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users, subscription_events RESTART IDENTITY CASCADE');
  await pool.query("DELETE FROM groups WHERE name <> 'default'");
  userId = await createUser(pool, { name: 'alice' });
  nodeIds.length = 0;
  for (const name of ['a', 'b', 'c']) {
    const node = { name, region: '', host: 'h', ip: '' };
    const { nodeId } = await createNode(pool, node, { registrationSeconds: 60 });
    await addProtocol(pool, { nodeId, protocol: 'VLESS', port: 443, settings: {} });
    nodeIds.push(nodeId);
  }
});

async function create(groups?: string[]): Promise<number> {
  const subscription = { userId, trafficLimitBytes: null, expiresAt: null, groups };
  return (await createSubscription(pool, subscription)).subscriptionId;
}

const change = (given: MembersChange, dryRun = false) => changeMembers(pool, given, { dryRun });
const protocolsOf = async (subscriptionId: number) =>
  (await listLinks(pool, subscriptionId)).map((link) => link.nodeProtocolId);

/** The nodes that the work marks as changed. */
async function marked(work: () => Promise<unknown>): Promise<number[]> {
  await publishNow({ pool, redis, prefix });
  const before = await Promise.all(nodeIds.map((id) => marksOf(pool, id)));
  await work();
  const after = await Promise.all(nodeIds.map((id) => marksOf(pool, id)));
  return nodeIds.filter((_, index) => after[index] !== before[index]);
}

t.test('members come into a group and leave it, and each node is marked once', async (t) => {
  const ids = [await create(), await create(), await create()];
  await createGroup(pool, 'premium');
  await setProtocol(pool, 3, { groups: ['premium'] });
  t.same(await protocolsOf(1), [1, 2]);
  const add: MembersChange = {
    group: 'premium',
    action: 'add',
    subscriptions: [{ from: 1, to: 2 }],
    nodes: [{ from: 2, to: 2 }],
  };
  const counts = { subscriptions: 2, protocols: 1, linksAdded: 2, linksEnded: 0, nodes: 2 };
  t.same(await marked(() => change(add, true)), [], 'a dry run changes nothing');
  t.same(await change(add, true), counts);
  t.same(await protocolsOf(1), [1, 2]);
  t.same(await marked(async () => t.same(await change(add), counts)), [2, 3]);
  t.same(await protocolsOf(1), [1, 2, 3], 'protocol 2 is met in two groups and is one link');
  t.same(await protocolsOf(3), [1, 2]);
  t.same(await change(add), {
    subscriptions: 0,
    protocols: 0,
    linksAdded: 0,
    linksEnded: 0,
    nodes: 0,
  });
  t.match(await listGroups(pool), [
    { name: 'default', subscriptions: ids.length, protocols: 2, nodes: 2 },
    { name: 'premium', subscriptions: 2, protocols: 2, nodes: 2 },
  ]);
  const uuids = await listLinks(pool, 1);
  const remove: MembersChange = { group: 'premium', action: 'remove', subscriptions: 'all' };
  t.match(await change(remove), { subscriptions: 2, linksAdded: 0, linksEnded: 2, nodes: 2 });
  t.same(await protocolsOf(1), [1, 2]);
  await change(add);
  t.same(await listLinks(pool, 1), uuids, 'who comes back has the same links');
});

t.test('each subscription has an event of a change of its groups', async (t) => {
  const ids = [await create(), await create(), await create()];
  await createGroup(pool, 'premium');
  await change({ group: 'premium', action: 'add', subscriptions: [{ from: 1, to: 2 }] });
  await change({ group: 'premium', action: 'add', subscriptions: 'all', protocols: 'all' });
  await change({ group: 'premium', action: 'remove', subscriptions: [{ from: 1, to: 1 }] }, true);
  await change({ group: 'premium', action: 'remove', subscriptions: [{ from: 1, to: 1 }] });
  await renameGroup(pool, 'premium', 'gold');
  await changeSubscription(pool, 3, { groups: ['gold'] });
  await changeSubscription(pool, 3, { groups: ['gold'] });
  await removeGroup(pool, 'gold', { dryRun: true });
  await removeGroup(pool, 'gold', { dryRun: false });
  const eventsOf = async (subscriptionId: number) => {
    const events = await listEvents(pool, { subscriptionId, afterId: 0, rowsMax: 100 });
    return events.flatMap(({ kind, data }) => (kind === 'groups_changed' ? [data] : []));
  };
  const joined = { from: ['default'], to: ['default', 'premium'] };
  const left = { from: joined.to, to: joined.from };
  t.same(await Promise.all(ids.map(eventsOf)), [
    [joined, left],
    [joined, { from: ['default', 'gold'], to: ['default'] }],
    [joined, { from: ['default', 'gold'], to: ['gold'] }, { from: ['gold'], to: [] }],
  ]);
});

t.test('members that do not exist are refused by name', async (t) => {
  await create();
  await createGroup(pool, 'premium');
  const refused: [Partial<MembersChange>, RegExp][] = [
    [{ subscriptions: [{ from: 9, to: 9 }] }, /^There is no subscription 9$/],
    [{ subscriptions: [{ from: 5, to: 9 }] }, /^There is no subscription with one of these ids$/],
    [
      {
        protocols: [
          { from: 1, to: 1 },
          { from: 7, to: 7 },
        ],
      },
      /^There is no protocol 7$/,
    ],
    [{ nodes: [{ from: 8, to: 8 }] }, /^There is no node 8$/],
    [{ group: 'gone' }, /^There is no group gone; there are default, premium$/],
  ];
  for (const [given, message] of refused) {
    await t.rejects(change({ group: 'premium', action: 'add', ...given }), {
      code: 'NOT_FOUND',
      message,
    });
  }
  const range = [{ from: 1, to: 99 }];
  t.match(await change({ group: 'premium', action: 'add', subscriptions: range }), {
    subscriptions: 1,
  });
});

t.test('a group is renamed, and removed with what it made', async (t) => {
  await createGroup(pool, 'premium');
  await create(['premium']);
  await create(['default', 'premium']);
  await change({ group: 'premium', action: 'add', protocols: 'all' });
  await renameGroup(pool, 'premium', 'gold');
  t.match(await showGroup(pool, 'gold'), { subscriptions: 2, protocols: 3, nodes: 3 });
  t.same(await protocolsOf(1), [1, 2, 3]);
  await t.rejects(createGroup(pool, 'gold'), { code: 'INVALID_ARGUMENT' });
  await t.rejects(renameGroup(pool, 'gold', 'default'), { code: 'INVALID_ARGUMENT' });
  await t.rejects(renameGroup(pool, 'default', 'other'), { code: 'INVALID_ARGUMENT' });
  await t.rejects(removeGroup(pool, 'default', { dryRun: true }), { code: 'INVALID_ARGUMENT' });
  const ended = { subscriptions: 2, protocols: 3, linksEnded: 3 };
  t.same(await removeGroup(pool, 'gold', { dryRun: true }), ended);
  const remove = async () => t.same(await removeGroup(pool, 'gold', { dryRun: false }), ended);
  t.same(await marked(remove), nodeIds);
  t.same(await protocolsOf(1), []);
  t.same(await protocolsOf(2), [1, 2, 3]);
  await t.rejects(showGroup(pool, 'gold'), { code: 'NOT_FOUND' });
});

t.test('a change of a subscription touches only the nodes of its groups', async (t) => {
  await createGroup(pool, 'premium');
  await setProtocol(pool, 2, { groups: ['premium'] });
  t.same(await marked(() => create(['premium'])), [2]);
  t.same(await linkedNodes(pool, [1]), [2]);
  t.same(await marked(() => create()), [1, 3]);
  await revokeNode(pool, 3);
  t.same(await protocolsOf(2), [1], 'a revoked node has no links');
  t.same(await countLinks(pool), { links: 2, linksInUse: 2 });
  t.same(await countLinks(pool, [1]), { links: 1, linksInUse: 1 });
});
