import t, { type Test } from 'tap';
import { commandLine } from '../support/cli.ts';
import { openStores } from '../support/stores.ts';

const stores = await openStores(t, { max: 2 });
const { pool } = stores;

const { core, json } = commandLine(stores.environment);

/** Checks that each of these fails with one line. */
async function refused(t: Tap, faults: readonly [command: string[], message: RegExp][]) {
  for (const [args, message] of faults) {
    const run = await core(...args);
    t.same([run.exitCode, run.stdout], [1, ''], args.join(' '));
    t.match(run.stderr, /^core: [^\n]+\n$/, 'one line');
    t.match(run.stderr, message);
  }
}
type Tap = Pick<typeof t, 'same' | 'match'>;

/** The newest cause for which the worker will render the node. */
async function lastCause(): Promise<string | undefined> {
  const { rows } = await pool.query<{ causes: string[] }>(
    'SELECT change_causes AS causes FROM nodes WHERE id = 1',
  );
  return rows[0]?.causes.at(-1);
}

t.beforeEach(async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
  await json('node', 'create', '--name', 'n');
});

const addOutbound = (tag: string, protocol: string) =>
  json('outbound', 'add', '--node', '1', '--tag', tag, '--protocol', protocol);
const addRule = (rule: object, ...more: string[]) =>
  json('rule', 'add', '--node', '1', '--rule', JSON.stringify(rule), ...more);

t.test('rules: add, list, move, remove', async (t) => {
  t.equal((await core('rule', 'list', '--node', '1')).stdout, 'The node has no rules.\n');
  await addOutbound('direct', 'freedom');
  await addOutbound('block', 'blackhole');
  const [privateIps, torrents, udp] = [
    { ip: ['geoip:private'], outboundTag: 'block' },
    { protocol: ['bittorrent'], outboundTag: 'block' },
    { network: 'udp', outboundTag: 'direct' },
  ];
  t.same(await addRule(privateIps), { ruleId: 1, position: 1 });
  t.same(await addRule(torrents), { ruleId: 2, position: 2 });
  t.same(await addRule(udp, '--at', '1'), { ruleId: 3, position: 1 });
  t.equal(await lastCause(), 'rule 3 added');
  t.same(await json('rule', 'list', '--node', '1'), [
    { ruleId: 3, position: 1, rule: udp },
    { ruleId: 1, position: 2, rule: privateIps },
    { ruleId: 2, position: 3, rule: torrents },
  ]);
  const { stdout } = await core('rule', 'list', '--node', '1');
  t.match(stdout, /^position {2}ruleId {2}rule\n {7}1 {7}3 {2}\{"network":"udp",/);

  t.same(await json('rule', 'move', '2', '--to', '1'), { ruleId: 2, nodeId: 1, position: 1 });
  t.equal(await lastCause(), 'rule 2 moved');
  t.match(
    await json('rule', 'move', '2', '--to', '99'),
    { position: 3 },
    'a position past the end is the last one',
  );
  t.same(await json('rule', 'remove', '1'), { ruleId: 1, nodeId: 1, status: 'removed' });
  t.equal(await lastCause(), 'rule 1 removed');
  t.same(await json('rule', 'list', '--node', '1'), [
    { ruleId: 3, position: 1, rule: udp },
    { ruleId: 2, position: 2, rule: torrents },
  ]);
});

t.test('impossible rules are refused', async (t) => {
  const add = (rule: string, node = '1') => ['rule', 'add', '--node', node, '--rule', rule];
  const good = '{"network":"udp","outboundTag":"direct"}';
  await refused(t, [
    [add('{"outboundTag":"direct"}'), /Invalid routing rule: rule: Needs a condition/],
    [add('{"network":"icmp","outboundTag":"direct"}'), /Invalid routing rule: network: /],
    [add('{"network":"udp","outboundTag":"direct","prot":1}'), /Invalid routing rule: .*prot/],
    [add('{"network":"udp","outboundTag":"warp"}'), /outbound warp, which the node does not have/],
    [add('[]'), /must be a JSON object/],
    [add('{'), /not valid JSON/],
    [add(good, '9'), /There is no node 9/],
    [[...add(good), '--at', '0'], /--at/],
    [['rule', 'add', '--node', '1'], /required option '--rule <json>'/],
    [['rule', 'list', '--node', '9'], /There is no node 9/],
    [['rule', 'move', '9', '--to', '1'], /There is no rule 9/],
    [['rule', 'move', '9'], /required option '--to <position>'/],
    [['rule', 'remove', '9'], /There is no rule 9/],
  ]);
  t.same(await json('rule', 'list', '--node', '1'), []);
  await json('node', 'revoke', '1', '--yes');
  await refused(t, [[add(good), /revoked/]]);
});

t.test('impossible names, hosts and addresses are refused', async (t) => {
  const set = (...args: string[]) => ['node', 'set', '1', ...args];
  const create = (...args: string[]) => ['node', 'create', '--name', 'x', ...args];
  const hidden = {
    'U+001B': '\u001b[2J',
    'U+009B': '\u009b2J',
    'U+202E': '\u202e',
    'U+200B': '\u200b',
  };
  for (const [character, text] of Object.entries(hidden)) {
    const named = `a${text}b`;
    const says = new RegExp(
      `must not hold the character ${character.replace('+', '\\+')} .*place 2`,
    );
    await refused(t, [
      [set('--name', named), says],
      [set('--region', named), says],
      [create('--region', named), says],
      [['node', 'create', '--name', named], says],
      [['node', 'maintenance', '1', 'on', '--reason', named], says],
      [['user', 'create', '--name', named], says],
      [['outbound', 'add', '--node', '1', '--protocol', 'freedom', '--tag', named], says],
      [set('--host', named), /must be a host name/],
    ]);
  }
  await refused(t, [
    [set('--host', 'https://fra-1.example.net/'), /must be a host name/],
    [create('--host', '[::1]'), /must be a host name/],
    [set('--ip', 'fra-1.example.net'), /must be an IP address/],
    [create('--ip', 'fe80::1%eth0'), /must be an IP address/],
    [set('--ip', ''), /must be an IP address/],
    [set('--name', ' '), /must not be empty/],
    [
      [
        'outbound',
        'add',
        '--node',
        '1',
        '--tag',
        'x',
        '--protocol',
        'socks',
        '--settings',
        '{"a":"\\ud800"}',
      ],
      /neither U\+0000 nor half a surrogate pair/,
    ],
    [
      ['rule', 'add', '--node', '1', '--rule', '{"domain":["a\\u2028"],"outboundTag":"direct"}'],
      /domain\[0\]: Must not hold the character U\+2028/,
    ],
  ]);
  t.match(await json('node', 'list'), [{ name: 'n', host: '', ip: '' }], 'nothing has changed');
});

/** Prunes two tags that nobody configured, and leaves the outbounds of node 1 as it found them. */
async function checkPrune(t: Test): Promise<void> {
  const others = '(others)';
  await refused(t, [
    [
      ['outbound', 'add', '--node', '1', '--tag', others, '--protocol', 'freedom'],
      /\(others\) is reserved/,
    ],
    [['outbound', 'prune', '--node', '9', '--yes'], /There is no node 9/],
  ]);
  await pool.query(
    `INSERT INTO node_outbounds (node_id, tag, configured, traffic_bytes_up, traffic_bytes_down)
     VALUES (1, 'a', false, 5, 6), (1, 'b', false, 7, 8)`,
  );
  await refused(t, [
    [['outbound', 'prune', '--node', '1'], /folds 2 tags .*moves 12 bytes up and 14 down/],
  ]);
  t.same(await json('outbound', 'prune', '--node', '1', '--yes'), {
    nodeId: 1,
    tags: 2,
    trafficBytesUp: 12,
    trafficBytesDown: 14,
    movedTo: others,
  });
  t.match((await json<object[]>('outbound', 'list', '--node', '1')).at(-1), {
    tag: others,
    trafficBytesUp: 12,
    trafficBytesDown: 14,
    configured: false,
  });
  await pool.query('DELETE FROM node_outbounds WHERE NOT configured');
}

t.test('outbounds: set, move, remove', async (t) => {
  const tags = async () =>
    (await json<{ tag: string }[]>('outbound', 'list', '--node', '1')).map(({ tag }) => tag);
  await addOutbound('direct', 'freedom');
  await addOutbound('warp', 'dns');
  await addOutbound('block', 'blackhole');
  t.same(await tags(), ['direct', 'warp', 'block']);

  const of = (tag: string) => ['--node', '1', '--tag', tag];
  const freedom = ['--protocol', 'Freedom', '--settings', '{"domainStrategy":"UseIP"}'];
  t.same(await json('outbound', 'set', ...of('warp'), ...freedom), { nodeId: 1, tag: 'warp' });
  t.equal(await lastCause(), 'outbound warp changed');
  t.match(await json('outbound', 'list', '--node', '1'), [
    { tag: 'direct' },
    { tag: 'warp', protocol: 'freedom', settings: { domainStrategy: 'UseIP' }, configured: true },
    { tag: 'block' },
  ]);
  await json('outbound', 'set', ...of('warp'), '--protocol', 'freedom');
  t.match((await json<object[]>('outbound', 'list', '--node', '1'))[1], { settings: {} });

  t.same(await json('outbound', 'move', ...of('block'), '--to', '1'), { nodeId: 1, tag: 'block' });
  t.equal(await lastCause(), 'outbound block moved');
  t.same(await tags(), ['block', 'direct', 'warp']);
  await json('outbound', 'move', ...of('block'), '--to', '99');
  t.same(await tags(), ['direct', 'warp', 'block'], 'a position past the end is the last one');

  await addRule({ network: 'udp', outboundTag: 'block' });
  await refused(t, [
    [['outbound', 'remove', ...of('block')], /outbound block, which the node does not have/],
    [['outbound', 'set', ...of('nope'), ...freedom], /Node 1 has no outbound nope configured/],
    [['outbound', 'set', ...of('warp')], /required option '--protocol <protocol>'/],
    [['outbound', 'set', ...of('warp'), '--protocol', 'fredom'], /must be one of/],
    [['outbound', 'move', ...of('nope'), '--to', '1'], /Node 1 has no outbound nope configured/],
    [['outbound', 'move', ...of('warp'), '--to', '0'], /--to/],
    [['outbound', 'move', '--node', '9', '--tag', 'warp', '--to', '1'], /There is no node 9/],
    [['outbound', 'remove', ...of('nope')], /Node 1 has no outbound nope configured/],
    [['outbound', 'add', ...of('warp'), ...freedom], /has an outbound warp already/],
  ]);
  await checkPrune(t);

  await json('outbound', 'remove', ...of('warp'));
  t.match((await json<object[]>('outbound', 'list', '--node', '1')).at(-1), {
    tag: 'warp',
    configured: false,
    protocol: null,
  });
});

t.test('protocols: set, remove', async (t) => {
  const add = ['protocol', 'add', '--node', '1', '--protocol'];
  await json(
    ...add,
    'VLESS',
    '--port',
    '443',
    '--settings',
    '{"security":"reality","reality":{"target":"a.example:443"}}',
  );
  await json(...add, 'TROJAN', '--port', '444', '--settings', '{"network":"ws"}');
  await json('user', 'create', '--name', 'alice');
  await json('subscription', 'create', '--user', '1');
  const links = () => json<{ uuid: string }[]>('link', 'list', '--subscription', '1');
  const before = await links();
  interface Listed {
    settings: { reality?: { privateKey?: string } };
  }
  const list = () => json<Listed[]>('protocol', 'list', '--node', '1', '--secrets');
  const [vless] = await list();
  const privateKey = vless?.settings.reality?.privateKey;
  t.match(privateKey, /^[\w-]{43}$/, 'Core has made a key');

  t.match(await json('protocol', 'set', '1', '--port', '8443'), {
    nodeProtocolId: 1,
    nodeId: 1,
    warnings: [/locks out clients/],
  });
  t.equal(await lastCause(), 'protocol 1 changed');
  t.match(await list(), [{ port: 8443, settings: vless?.settings ?? {} }, { port: 444 }]);
  const moved = '{"security":"reality","reality":{"target":"b.example:443"}}';
  await json('protocol', 'set', '1', '--settings', moved);
  t.match(await list(), [
    { port: 8443, settings: { reality: { target: 'b.example:443', privateKey } } },
    { port: 444, settings: { network: 'ws' } },
  ]);
  t.same(await links(), before, 'links stay');

  await refused(t, [
    [['protocol', 'set', '1'], /Nothing to change/],
    [
      ['protocol', 'set', '1', '--port', '444'],
      /^core: TCP port 444 of node 1 is taken by protocol 2 \(TROJAN\)$/m,
    ],
    [['protocol', 'set', '1', '--port', '0'], /--port/],
    [['protocol', 'set', '1', '--settings', '{"nope":1}'], /Invalid VLESS settings: .*nope/],
    [['protocol', 'set', '9', '--port', '1'], /There is no protocol 9/],
    [['protocol', 'remove', '9'], /There is no protocol 9/],
  ]);
  t.match((await list())[0], { port: 8443 }, 'refused commands change nothing');

  t.same(await json('protocol', 'remove', '1', '--yes'), {
    nodeProtocolId: 1,
    nodeId: 1,
    status: 'removed',
  });
  t.equal(await lastCause(), 'protocol 1 removed');
  t.match(await list(), [{ nodeProtocolId: 2 }]);
  t.same(await links(), before.slice(1), 'its links end with it');
  await json('protocol', 'set', '2', '--port', '8443');
});
