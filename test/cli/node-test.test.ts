import { writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { projectRoot } from '../../src/root.ts';
import { commandLine } from '../support/cli.ts';
import { openStores } from '../support/stores.ts';

// The program here answers as a real Xray was seen to. `npm run conformance` runs real ones.
const recorded = path.join(projectRoot, 'test', 'fixtures', 'recorded-xray.mjs');
const stores = await openStores(t, { max: 4 });
const { core, json } = commandLine({ ...stores.environment, CORE_XRAY: recorded });

const test = (...args: string[]) => core('node', 'test', '1', '--json', ...args);
const setRaw = (raw: object, given = core) =>
  given('xray', 'set', '--node', '1', '--settings', JSON.stringify({ raw }));
const nonsense = { inbounds: [{ tag: 'a', port: 9_000, protocol: 'nonsense' }] };
const report = (version: string) =>
  stores.pool.query(
    `INSERT INTO heartbeats (node_id, last_seen_at, xray_version, rendered_xray_version)
     VALUES (1, now(), $1, $1) ON CONFLICT (node_id) DO UPDATE
     SET xray_version = $1, rendered_xray_version = $1`,
    [version],
  );

t.test('a node is tested by the Xray that CORE_XRAY names', async (t) => {
  await json('node', 'create', '--name', 'n');
  t.match(JSON.parse((await test()).stdout), { outcome: 'no Xray' });
  const tls = { certificateFile: '/etc/c.pem', keyFile: '/etc/k.pem', serverName: 'a.example' };
  const settings = JSON.stringify({ security: 'tls', tls });
  const added = ['--node', '1', '--protocol', 'VLESS', '--port', '443', '--settings', settings];
  await json('protocol', 'add', ...added);
  const taken = await test();
  t.same(JSON.parse(taken.stdout), { nodeId: 1, outcome: 'taken', version: '26.7.28' });
  t.equal(taken.exitCode, 0);

  await report('26.4.17');
  t.match(JSON.parse((await test()).stdout), { note: /The node reports 26\.4\.17/ });
});

t.test('a configuration that Xray refuses ends with 3, and the reason', async (t) => {
  const set = await setRaw(nonsense);
  t.equal(set.exitCode, 0, 'another version than that of the node is no judge');
  t.match(set.stderr, /Warning: Xray 26\.7\.28 refuses .* The node reports 26\.4\.17/);
  const refused = await test();
  t.equal(refused.exitCode, 3);
  t.match(JSON.parse(refused.stdout), {
    outcome: 'refused',
    reason:
      'infra/conf: failed to load inbound detour config > infra/conf: unknown config id: nonsense',
  });
  await setRaw({ routing: { rules: [{ ip: ['geoip:private'], outboundTag: 'direct' }] } });
  const geo = await test();
  t.equal(geo.exitCode, 3);
  t.match(JSON.parse(geo.stdout), { outcome: 'needs geo files', reason: /geoip\.dat/ });
});

t.test('raw that the version of the node refuses is not stored', async (t) => {
  await report('Xray 26.7.28 (Xray, Penetrates Everything.)');
  const stored = await json('xray', 'show', '--node', '1', '--secrets');
  const refused = await setRaw(nonsense);
  t.equal(refused.exitCode, 1);
  t.match(refused.stderr, /Xray 26\.7\.28 refuses the configuration of node 1: .*nonsense/);
  t.same(await json('xray', 'show', '--node', '1', '--secrets'), stored);
  t.equal((await setRaw({ log: { loglevel: 'none' } })).stderr, '');
  const away = commandLine({ ...stores.environment, CORE_XRAY: '/nowhere/xray' }).core;
  t.match((await setRaw({ log: { loglevel: 'none' } }, away)).stderr, /raw is not tested: /);
  const fleet = path.join(t.testdir({ 'fleet.yaml': '' }), 'fleet.yaml');
  writeFileSync(
    fleet,
    JSON.stringify({ version: 1, nodes: [{ name: 'n', xray: { raw: nonsense } }] }),
  );
  t.match((await core('apply', fleet)).stderr, /refuses the configuration of node 1: .*nonsense/);
});

t.test('what is raw shows in the state of a node and in drift', async (t) => {
  const outbound = ['--node', '1', '--tag', 'o', '--protocol', 'freedom'];
  await json('outbound', 'add', ...outbound, '--raw', '{"mux":{"enabled":false}}');
  await json('protocol', 'set', '1', '--settings', '{"raw":{"streamSettings":{"sockopt":{}}}}');
  const raw = [
    { part: 'protocol 1 (VLESS)', fields: ['streamSettings'] },
    { part: 'outbound o', fields: ['mux'] },
    { part: 'root', fields: ['log'] },
  ];
  t.match(await json('node', 'show', '1'), { raw });
  t.match(await json('node', 'drift'), [{ raw }]);
  const text = /protocol 1 \(VLESS\): streamSettings; outbound o: mux; root: log/;
  t.match((await core('node', 'show', '1')).stdout, text);
  t.match((await core('node', 'drift')).stdout, text);
});

t.test('an Xray that is missing or none is an error that says what to do', async (t) => {
  for (const [program, message] of [
    ['/nowhere/xray', /\/nowhere\/xray cannot be run: .*No such file.* --xray or CORE_XRAY/],
    ['/etc', /cannot be run: .*Permission denied/],
    ['true', /does not say that it is Xray: it says nothing/],
  ] as const) {
    const run = await test('--xray', program);
    t.equal(run.exitCode, 1);
    t.match(JSON.parse(run.stderr), { error: { code: 'XRAY_UNUSABLE', message } });
  }
  t.match(JSON.parse((await core('node', 'test', '9', '--json')).stderr), {
    error: { code: 'NOT_FOUND' },
  });
});
