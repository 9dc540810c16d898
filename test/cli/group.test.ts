import { writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { commandLine } from '../support/cli.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 2, connectTimeoutMs: 60_000 });
const { core, json } = commandLine(stores.environment);

t.before(async () => {
  await json('node', 'create', '--name', 'fra-1');
  for (const port of ['443', '444']) {
    await json('protocol', 'add', '--node', '1', '--protocol', 'VLESS', '--port', port);
  }
  await json('user', 'create', '--name', 'alice');
  for (const _ of [1, 2, 3]) await json('subscription', 'create', '--user', '1');
});

const premium = { name: 'premium', subscriptions: 0, protocols: 0, nodes: 0 };

t.test('groups: create, members, list, rename, remove', async (t) => {
  t.match(await json('group', 'create', 'premium'), premium);
  t.match(await json('protocol', 'set', '2', '--groups', 'premium', '--yes'), {
    nodeProtocolId: 2,
  });
  t.match(await json('protocol', 'list'), [{ groups: ['default'] }, { groups: ['premium'] }]);
  const ids = path.join(t.testdir({}), 'ids.txt');
  writeFileSync(ids, '1\n2-3\n');
  t.same(await json('group', 'add', 'premium', '--subscriptions', `@${ids}`), {
    group: 'premium',
    subscriptions: 3,
    protocols: 0,
    linksAdded: 3,
    linksEnded: 0,
    nodes: 1,
  });
  t.match(await json('subscription', 'show', '1'), { groups: ['default', 'premium'] });
  const removed = ['group', 'remove-members', 'premium', '--subscriptions', '2,3'];
  const asked = await core(...removed);
  t.equal(asked.exitCode, 1);
  t.equal(
    asked.stderr,
    'core: Removing from group premium takes 2 subscriptions and 0 protocols out of it, ends 2 links, changes 1 node. Nothing was changed: give --yes to do it\n',
  );
  t.match(await json('group', 'show', 'premium'), { subscriptions: 3 });
  t.match(await json(...removed, '--yes'), { linksEnded: 2 });
  t.match((await core('group', 'list')).stdout, /^premium +1 +1 +1$/m);
  t.match(await json('group', 'rename', 'premium', 'gold'), { name: 'gold', subscriptions: 1 });
  t.match(
    (await core('group', 'remove', 'gold')).stderr,
    /takes 1 subscription and 1 protocol out/,
  );
  t.same(await json('group', 'remove', 'gold', '--yes'), {
    name: 'gold',
    subscriptions: 1,
    protocols: 1,
    linksEnded: 1,
  });
});

t.test('members are listed a page at a time', async (t) => {
  await json('group', 'create', 'listed');
  await json('group', 'add', 'listed', '--all-subscriptions', '--protocols', '1-2');
  const show = ['group', 'show', 'listed'];
  t.same(await json(...show, '--protocols', '--max', '1'), [
    {
      nodeProtocolId: 1,
      nodeId: 1,
      nodeName: 'fra-1',
      name: 'vless-443',
      protocol: 'VLESS',
      port: 443,
    },
  ]);
  t.match((await core(...show, '--protocols', '--after', '1')).stdout, /^ +2 .*VLESS +444$/m);
  const alice = { userId: 1, userName: 'alice', status: 'active' };
  t.same(await json(...show, '--subscriptions', '--after', '1', '--max', '1'), [
    { subscriptionId: 2, ...alice },
  ]);
  t.match(await json(...show, '--subscriptions'), [{}, {}, { subscriptionId: 3 }]);
  t.equal((await core(...show, '--protocols', '--after', '9')).stdout, 'There are no protocols.\n');
  t.match((await core(...show, '--protocols', '--subscriptions')).stderr, 'not both');
  t.match((await core('group', 'show', 'gone', '--protocols')).stderr, 'There is no group gone');
});

t.test('a group whose members have other links is removed without a question', async (t) => {
  await json('group', 'create', 'spare');
  await json('group', 'add', 'spare', '--subscriptions', '2', '--protocols', '1');
  t.match(await json('group', 'remove-members', 'spare', '--subscriptions', '2'), {
    subscriptions: 1,
    linksEnded: 0,
  });
  await json('group', 'add', 'spare', '--subscriptions', '2');
  t.match(await json('group', 'remove', 'spare'), { subscriptions: 1, linksEnded: 0 });
});

t.test('groups of one subscription and one protocol', async (t) => {
  await json('group', 'create', 'trial');
  const created = await json<{ subscriptionId: number; links: unknown[] }>(
    ...['subscription', 'create', '--user', '1', '--groups', 'trial'],
  );
  t.same(created.links, []);
  const added = [
    '--node',
    '1',
    '--protocol',
    'VLESS',
    '--port',
    '445',
    '--groups',
    'trial,default',
  ];
  await json('protocol', 'add', ...added);
  const id = String(created.subscriptionId);
  t.match(await json('link', 'list', '--subscription', id), [{ nodeProtocolId: 3 }]);
  const ends = ['subscription', 'set', id, '--groups', 'default'] as const;
  t.match(await json(...ends), { groups: ['default'] }, 'it ends no link');
  const asks = await core('subscription', 'set', id, '--groups', 'trial', '--json');
  t.match(JSON.parse(asks.stderr), { error: { code: 'CONFIRMATION_NEEDED' } });
});

t.test('what a group command cannot use', async (t) => {
  const refused: [args: string[], message: RegExp][] = [
    [['create', 'a,b'], /It must not hold a comma, a semicolon or @/],
    [['show', 'gone'], /There is no group gone; there are default/],
    [['add', 'default'], /Name members: --subscriptions, --protocols/],
    [['add', 'default', '--subscriptions', '1', '--all-subscriptions'], /not both/],
    [['add', 'default', '--subscriptions', '9-1'], /9-1 is no range like 5-900/],
    [['add', 'default', '--subscriptions', 'x'], /--subscriptions/],
    [['add', 'default', '--subscriptions', '@/none'], /cannot be read/],
    [['remove', 'default'], /cannot be removed: new protocols and subscriptions are put into it/],
  ];
  for (const [args, message] of refused) {
    const run = await core('group', ...args);
    t.same([run.exitCode, run.stdout], [1, ''], args.join(' '));
    t.match(run.stderr, message);
  }
});
