import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { projectRoot } from '../../src/root.ts';
import { commandLine } from '../support/cli.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 2 });
const { pool } = stores;
const { core, json } = commandLine(stores.environment);
const folder = t.testdir({});
let uuid = '';

/** Node 1 has two protocols. User 1 has two subscriptions with links to both; one is disabled. */
t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
  await json('node', 'create', '--name', 'fra 1');
  for (const port of ['443', '444']) {
    await json('protocol', 'add', '--node', '1', '--protocol', 'TROJAN', '--port', port);
  }
  await json('user', 'create', '--name', 'alice');
  for (const _ of [1, 2]) await json('subscription', 'create', '--user', '1');
  await json('subscription', 'disable', '2');
  const [link] = await json<{ uuid: string }[]>('link', 'list', '--subscription', '1');
  uuid = link?.uuid ?? '';
});

/** The rows of every table that a command could change. */
async function everything(): Promise<unknown[]> {
  const tables = ['nodes', 'registration_codes', 'node_protocols', 'users', 'subscriptions'];
  const groups = ['groups', 'protocol_groups', 'subscription_groups'];
  const all = [...tables, ...groups, 'subscription_links', 'subscription_events'];
  const rows = all.map((table) => pool.query(`SELECT * FROM ${table} ORDER BY 1, 2`));
  return (await Promise.all(rows)).map((result) => result.rows);
}

function fleetFile(nodes: string): string {
  const file = path.join(folder, 'fleet.yaml');
  writeFileSync(file, `version: 1\nnodes: ${nodes}\n`);
  return file;
}

const one = '[{ name: fra 1, protocols: [{ protocol: TROJAN, port: 443 }] }]';
const commands = (): [args: string[], message: string][] => [
  [
    ['node', 'delete', '1'],
    'Deleting node 1 (fra 1) ends the code that it has, ends 2 protocols and 4 links, 2 of them in use',
  ],
  [['node', 'rekey', '1'], 'with its 4 links, 2 of them in use'],
  [['node', 'revoke', '1'], 'Revoking node 1 (fra 1) ends the code'],
  [
    ['protocol', 'remove', '1'],
    'Removing protocol 1 (TROJAN on port 443 of node 1) ends 2 links, 1 of them in use',
  ],
  [
    ['subscription', 'delete', '1'],
    'Deleting subscription 1 of alice ends 2 links on 1 node (it is active)',
  ],
  [
    ['subscription', 'rotate', '2'],
    'Rotating all links of subscription 2 of alice ends 2 links on 1 node (it is not active)',
  ],
  [['link', 'rotate', uuid], 'ends the credential that clients have (it is in use)'],
  [
    ['user', 'delete', '1', '--force'],
    'Deleting user 1 (alice) ends 2 subscriptions and 4 links on 1 node',
  ],
  [
    ['apply', fleetFile('[]'), '--prune'],
    'This plan ends 1 node, 2 protocols and 4 links, 2 of them in use',
  ],
  [
    ['apply', path.join(folder, 'fleet.yaml')],
    'This plan ends 0 nodes, 1 protocol and 2 links, 1 of them in use',
  ],
];

t.test('without a terminal and without --yes a command only says what it would do', async (t) => {
  const before = await everything();
  for (const [args, message] of commands()) {
    if (args[0] === 'apply') fleetFile(args.includes('--prune') ? '[]' : one);
    const run = await core(...args);
    t.equal(run.exitCode, 1, args.join(' '));
    t.match(
      run.stderr,
      /^core: [^\n]+ It cannot be undone, and nothing was changed: give --yes to do it\n$/,
    );
    t.match(run.stderr, message);
    const asJson = await core(...args, '--json');
    t.same([asJson.exitCode, asJson.stdout], [1, '']);
    t.match(JSON.parse(asJson.stderr), { error: { code: 'CONFIRMATION_NEEDED' } });
    t.same(await everything(), before);
  }
});

t.test('with --yes a command acts, and says what it did', async (t) => {
  t.match(await json('link', 'rotate', uuid, '--yes'), { uuid });
  t.equal((await json<unknown[]>('subscription', 'rotate', '1', '--yes')).length, 2);
  t.same(await json('subscription', 'delete', '1', '--yes'), {
    subscriptionId: 1,
    deleted: true,
    links: 2,
  });
  t.match(await json('node', 'rekey', '1', '--yes'), { nodeId: 1, code: String });
  t.same(await json('protocol', 'remove', '2', '--yes'), {
    nodeProtocolId: 2,
    nodeId: 1,
    status: 'removed',
  });
  t.same(await json('node', 'delete', '1', '--yes'), {
    nodeId: 1,
    status: 'deleted',
    protocols: 1,
    links: 1,
  });
  t.match(await json('user', 'delete', '1', '--force', '--yes'), { subscriptions: 1 });
});

t.test('apply asks only if nodes or links end', async (t) => {
  t.match(await json('apply', fleetFile('[]'), '--prune', '--dry-run'), { remove: 1 });
  t.match(await json('apply', fleetFile('[{ name: ams-1 }]')), { create: 1, remove: 0 });
  t.match(await json('apply', fleetFile(one), '--yes'), { remove: 1 }, 'a protocol that has links');
  await pool.query('DELETE FROM subscriptions');
  const bare = fleetFile('[{ name: fra 1, protocols: [] }, { name: ams-1 }]');
  t.match(await json('apply', bare), { remove: 1 }, 'a protocol without links needs no --yes');
  t.match(await json('apply', fleetFile('[]'), '--prune', '--yes'), { remove: 2 });
});

/** Runs the program at a terminal of its own, and types an answer once the program asks. */
async function atTerminal(args: string[], typed: string, first?: () => Promise<unknown>) {
  const program = path.join(projectRoot, 'dist', 'src', 'bin', 'core.js');
  const words = [process.execPath, program, ...args].map((word) => `'${word}'`);
  const child = spawn('script', ['-qec', words.join(' '), '/dev/null'], {
    env: { ...process.env, ...stores.environment },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const closed = once(child, 'close') as Promise<[number]>;
  let shown = '';
  let isAsked = false;
  for await (const chunk of child.stdout) {
    shown += String(chunk).replaceAll('\r', '');
    if (isAsked || !shown.includes('to go on: ')) continue;
    isAsked = true;
    await first?.();
    child.stdin.write(typed);
  }
  const [exitCode] = await closed;
  return { exitCode, shown };
}

t.test('at a terminal the operator types the name', async (t) => {
  const before = await everything();
  const wrong = await atTerminal(['node', 'delete', '1'], 'ams 1\n');
  t.equal(wrong.exitCode, 1);
  t.match(wrong.shown, 'core: Not confirmed: nothing was changed');
  const ended = await atTerminal(['node', 'delete', '1'], '\u0004');
  t.equal(ended.exitCode, 1, 'end of input');
  t.match(ended.shown, /\ncore: Not confirmed/, 'the error is on a line of its own');
  t.not((await atTerminal(['node', 'delete', '1'], '\u0003')).exitCode, 0, 'Ctrl-C');
  t.match((await atTerminal(['node', 'delete', '1', '--json'], 'fra 1\n')).shown, 'give --yes');
  t.same(await everything(), before);

  const { exitCode, shown } = await atTerminal(['node', 'delete', '1'], 'fra 1\n');
  t.equal(exitCode, 0);
  t.match(
    shown,
    'Deleting node 1 (fra 1)\n  ends the code that it has\n  ends 2 protocols and 4 links, 2 of them in use\n',
  );
  t.match(shown, 'This cannot be undone. Type fra 1 to go on: ');
  t.match(shown, /^status +deleted$/m);
  t.same(await json('node', 'list'), []);
});

t.test('at a terminal the plan comes before the question', async (t) => {
  const file = fleetFile('[]');
  const { exitCode, shown } = await atTerminal(['apply', file, '--prune'], 'yes\n');
  t.equal(exitCode, 0);
  const order = ['- remove node fra 1\n', 'Type yes to go on: ', '0 created, 0 changed, 1 removed'];
  const places = order.map((part) => shown.indexOf(part));
  t.ok(!places.includes(-1), shown);
  t.same(
    places,
    places.toSorted((left, right) => left - right),
  );
  t.same(await json('node', 'list'), []);
});

t.test('a plan that has changed since the question is not carried out', async (t) => {
  const file = fleetFile('[]');
  const { shown } = await atTerminal(['apply', file, '--prune'], 'yes\n', () =>
    json('node', 'create', '--name', 'ams-1'),
  );
  t.match(shown, 'core: The fleet has changed meanwhile: nothing was changed');
  t.equal((await json<unknown[]>('node', 'list')).length, 2);
});
