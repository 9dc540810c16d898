import t from 'tap';
import { commandLine } from '../support/cli.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 2, connectTimeoutMs: 60_000 });
const { pool } = stores;
const { core, json } = commandLine(stores.environment);
const list = (...args: string[]) => core('link', 'list', ...args);

interface Listed {
  subscriptionId: number;
  nodeProtocolId: number;
  uris?: string[];
}

/** Alice has subscriptions 1 and 2, bob has 3. Subscription 2 is in `premium`, as protocol 2 is. */
t.before(async () => {
  await json('migrate');
  for (const name of ['alice', 'bob']) await json('user', 'create', '--name', name);
  await json('group', 'create', 'premium');
  await json('group', 'create', 'empty');
  await json('node', 'create', '--name', 'a', '--host', 'a.example.net');
  await json('protocol', 'add', '--node', '1', '--protocol', 'VLESS', '--port', '443');
  const premium = ['--protocol', 'TROJAN', '--port', '444', '--groups', 'premium'];
  await json('protocol', 'add', '--node', '1', ...premium);
  await json('subscription', 'create', '--user', '1');
  await json('subscription', 'create', '--user', '1', '--groups', 'default,premium');
  await json('subscription', 'create', '--user', '2');
});

/** Each line as the subscription and the scheme of its link. */
const linesOf = (text: string) => text.split('\n').map((line) => line.split('://')[0]);

t.test('share links of a user, a group and all, with the subscription before each', async (t) => {
  t.same(linesOf((await list('--user', '1', '--uri')).stdout), [
    '1 vless',
    '2 vless',
    '2 trojan',
    '',
  ]);
  t.same(linesOf((await list('--group', 'premium', '--uri')).stdout), ['2 vless', '2 trojan', '']);
  const all = await list('--all', '--uri');
  t.same(linesOf(all.stdout), ['1 vless', '2 vless', '2 trojan', '3 vless', '']);
  t.same([all.stderr, all.exitCode], ['', 0]);
  const one = await list('--subscription', '2', '--uri');
  t.same(linesOf(one.stdout), ['vless', 'trojan', ''], 'apps take the list of one subscription');
  const shown = await json<{ uri: string }>(
    'link',
    'show',
    '--subscription',
    '2',
    '--protocol',
    '2',
  );
  t.match(all.stdout, `2 ${shown.uri}\n`);
});

t.test('the same as one JSON array', async (t) => {
  const all = await json<Listed[]>('link', 'list', '--all', '--uri');
  t.same(
    all.map(({ subscriptionId, nodeProtocolId, uris }) => [
      subscriptionId,
      nodeProtocolId,
      uris?.length,
    ]),
    [
      [1, 1, 1],
      [2, 1, 1],
      [2, 2, 1],
      [3, 1, 1],
    ],
  );
  t.equal((await json<Listed[]>('link', 'list', '--user', '1')).length, 3);
  t.same(await json('link', 'list', '--group', 'empty', '--uri'), []);
});

t.test('links without their secrets, in a table', async (t) => {
  const { stdout } = await list('--group', 'premium');
  t.match(
    stdout,
    /^subscriptionId +nodeProtocolId +nodeId +protocol +uuid\n +2 +1 +1 +VLESS +\S+\n/,
  );
  t.notMatch((await list('--subscription', '2')).stdout, 'subscriptionId');
  t.equal((await list('--group', 'empty')).stdout, 'There are no links.\n');
  t.equal((await list('--group', 'empty', '--uri')).stdout, 'There are no share links.\n');
});

t.test('whose links must be said, and be there', async (t) => {
  for (const args of [
    [],
    ['--all', '--user', '1'],
    ['--subscription', '1', '--group', 'premium'],
  ]) {
    const run = await list(...args);
    t.equal(run.exitCode, 1);
    t.match(run.stderr, 'give one of --subscription, --user, --group and --all');
  }
  t.match((await list('--user', '9')).stderr, 'There is no user 9');
  t.match((await list('--group', 'gold', '--uri')).stderr, 'There is no group gold');
  t.match((await list('--subscription', '9', '--uri')).stderr, 'There is no subscription 9');
});

t.test('a protocol that cannot be said takes no other link from the list', async (t) => {
  await pool.query(`INSERT INTO node_protocols (node_id, protocol, port, name, settings)
    VALUES (1, 'SHADOWSOCKS', 445, 'broken', '{"method":"2022-blake3-aes-128-gcm"}')`);
  await pool.query(
    'INSERT INTO protocol_groups (group_id, node_protocol_id) SELECT 1, max(id) FROM node_protocols',
  );
  const { exitCode, stdout, stderr } = await list('--all', '--uri');
  t.equal(exitCode, 0);
  t.same(linesOf(stdout), ['1 vless', '2 vless', '2 trojan', '3 vless', '']);
  t.match(
    stderr,
    /^Left out: links to protocols with incomplete settings \(3\)\. Protocol 3: Stored/,
  );
  await pool.query('DELETE FROM node_protocols WHERE id = 3');
});

t.test('more links than one part, in order and each once', async (t) => {
  await pool.query('INSERT INTO subscriptions (user_id) SELECT 2 FROM generate_series(1, 2500)');
  await pool.query(
    'INSERT INTO subscription_groups (subscription_id, group_id) SELECT id, 1 FROM subscriptions WHERE id > 3',
  );
  const { stdout } = await list('--user', '2', '--uri');
  const ids = stdout
    .trimEnd()
    .split('\n')
    .map((line) => Number(line.split(' ')[0]));
  t.equal(ids.length, 2_501);
  t.same(
    ids,
    [...new Set(ids)].toSorted((left, right) => left - right),
  );
  const all = await json<Listed[]>('link', 'list', '--all');
  t.equal(all.length, 2_504);
});
