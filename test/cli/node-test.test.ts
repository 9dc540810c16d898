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
const setRaw = (raw: object) =>
  json('xray', 'set', '--node', '1', '--settings', JSON.stringify({ raw }));

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

  await stores.pool.query(
    `INSERT INTO heartbeats (node_id, last_seen_at, xray_version, rendered_xray_version)
     VALUES (1, now(), '26.4.17', '26.4.17')`,
  );
  t.match(JSON.parse((await test()).stdout), { note: /The node reports 26\.4\.17/ });
});

t.test('a configuration that Xray refuses ends with 3, and the reason', async (t) => {
  await setRaw({ inbounds: [{ tag: 'a', port: 9_000, protocol: 'nonsense' }] });
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
