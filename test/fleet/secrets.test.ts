import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { writeDurable } from '../../src/durable-file.ts';
import { applyFleet } from '../../src/fleet/apply.ts';
import { exportFleet } from '../../src/fleet/export.ts';
import { parseFleetFile } from '../../src/fleet/file.ts';
import { readFleet } from '../../src/fleet/state.ts';
import { settingNames } from '../../src/protocols/settings.ts';
import { protocolSettings } from '../../src/settings/harmless.ts';
import { commandLine } from '../support/cli.ts';
import { openStores } from '../support/stores.ts';

const { pool, environment } = await openStores(t, { max: 2 });
const { core, json } = commandLine(environment);
const folder = t.testdir({});

const empty = () => pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
t.beforeEach(async () => {
  await empty();
});

const apply = (text: string) =>
  applyFleet(pool, parseFleetFile('fleet.yaml', text), {
    prune: true,
    dryRun: false,
    registrationSeconds: 60,
  });
const fleetOf = (node: object): string =>
  JSON.stringify({ version: 1, nodes: [{ name: 'fra-1', ...node }] });
const exported = async () => (await exportFleet(pool, { secrets: false })).text;

t.test('every setting of a protocol is shown, or is in the list of secrets', async (t) => {
  const hidden = ['serverKey', 'adTag', 'decryption', 'encryption', 'raw'];
  for (const [protocol, names] of Object.entries(settingNames)) {
    const left = names.filter((name) => !(name in protocolSettings));
    t.same(
      left.filter((name) => !hidden.includes(name)),
      [],
      protocol,
    );
  }
});

const secret = fc.stringMatching(/^[A-Za-z0-9]{24}$/);
/** A name that is in no list of harmless fields, and the shape of its value. */
const unknown = fc.tuple(fc.stringMatching(/^x[a-z]{1,6}$/), fc.constantFrom(0, 1, 2));
const planted = (value: string, [name, shape]: [string, number]): object => ({
  [name]: shape === 0 ? value : shape === 1 ? [value, { [value]: value }] : { address: value },
});

t.test('neither an export nor a plan shows what is not known to be harmless', async (t) => {
  await fc.assert(
    fc.asyncProperty(secret, unknown, async (value, place) => {
      await empty();
      const some = planted(value, place);
      const key = Buffer.from(`${value}12345678`).toString('base64');
      const outbounds = [
        {
          tag: 'a',
          protocol: 'socks',
          settings: {
            servers: [{ address: 'a.example', port: 1, users: [{ user: value, pass: value }] }],
          },
          raw: { ...some, streamSettings: { sockopt: some }, mux: some },
        },
        {
          tag: 'b',
          protocol: 'vless',
          settings: { address: 'a.example', port: 1, id: value, email: value, encryption: 'none' },
          streamSettings: {
            network: 'ws',
            security: 'tls',
            wsSettings: { host: 'h.example', headers: { Authorization: value } },
            tlsSettings: { echConfigList: value, masterKeyLog: value },
          },
        },
        {
          tag: 'c',
          protocol: 'wireguard',
          settings: {
            secretKey: key,
            peers: [{ endpoint: 'a.example:1', publicKey: '00'.repeat(32), preSharedKey: key }],
          },
        },
        {
          tag: 'd',
          protocol: 'freedom',
          settings: { noises: [{ type: 'str', packet: value }] },
        },
        {
          tag: 'e',
          protocol: 'trojan',
          settings: { servers: [{ address: 'a.example', port: 1, password: value, email: value }] },
        },
      ];
      const serverKey = Buffer.from(value.slice(0, 16)).toString('base64');
      const rules = [
        { user: [`regexp:${value}`], outboundTag: 'a' },
        { port: 2, webhook: { url: `https://h.example/${value}` }, outboundTag: 'a' },
        { port: 1, attrs: { cookie: value }, outboundTag: 'a' },
      ];
      const masquerade = { type: 'proxy', url: `https://${value}:${value}@c.example/` };
      await apply(
        fleetOf({
          protocols: [
            { protocol: 'SHADOWSOCKS', port: 1, settings: { serverKey } },
            {
              protocol: 'HYSTERIA2',
              port: 2,
              settings: { tls: { certificateFile: '/c', keyFile: '/k' }, masquerade },
            },
          ],
          outbounds,
          rules,
        }),
      );
      const before = JSON.stringify(await readFleet(pool));
      const text = await exported();
      const again = await apply(text);
      const change = await apply(text.replaceAll('a.example', 'b.example'));
      for (const shown of [text, JSON.stringify([again.lines, change.lines])]) {
        const isSeen = [value, serverKey, key].some((one) => shown.includes(one));
        if (isSeen) throw new Error(shown);
      }
      if (again.lines.length > 0) throw new Error(JSON.stringify(again.lines));
      const after = JSON.stringify(await readFleet(pool));
      if (after !== before.replaceAll('a.example', 'b.example')) throw new Error(after);
    }),
    { numRuns: 25 },
  );
  t.pass('25 secrets in every place');
});

t.test('a kept secret stays with its server', async (t) => {
  const publicKey = '00'.repeat(32);
  const keys = { p1: '01'.repeat(32), p2: '02'.repeat(32), other: '03'.repeat(32) };
  const peer = (endpoint: string, preSharedKey: string) => ({ endpoint, publicKey, preSharedKey });
  const file = (...peers: object[]) =>
    fleetOf({
      outbounds: [
        { tag: 'a', protocol: 'wireguard', settings: { secretKey: '04'.repeat(32), peers } },
      ],
    });
  const stored = async () => {
    const [node] = await readFleet(pool);
    return node?.outbounds[0]?.settings['peers'];
  };
  const kept = '<kept>';
  const [one, two] = [peer('1.example:1', keys.p1), peer('2.example:1', keys.p2)];
  const [keptOne, keptTwo] = [peer('1.example:1', kept), peer('2.example:1', kept)];

  await apply(file(one, two));
  await apply(file(keptTwo, keptOne));
  t.same(await stored(), [two, one], 'in another order');
  await apply(file(keptOne));
  t.same(await stored(), [one], 'without the second server');
  await apply(file(two, keptOne));
  t.same(await stored(), [two, one], 'after a new server');
  await apply(file(keptTwo, { ...keptOne, endpoint: '1.example:2' }));
  t.same(await stored(), [two, { ...one, endpoint: '1.example:2' }], 'with another port, in place');

  const refused = async (...peers: object[]) => {
    const before = await stored();
    await t.rejects(apply(file(...peers)), {
      code: 'INVALID_ARGUMENT',
      message: /preSharedKey: Is a secret that the file leaves out/,
    });
    t.same(await stored(), before);
  };
  await refused(keptTwo, { ...keptOne, endpoint: '1.example:2' }, peer('3.example:1', kept));
  await refused({ ...keptTwo, endpoint: '2.example:3' }, { ...keptOne, endpoint: '1.example:4' });
  await apply(file(one, { ...one, preSharedKey: keys.other }));
  await refused(keptOne);
  t.same(
    (await apply(await exported())).lines,
    [],
    'two servers that differ only in their secrets stay at their places',
  );
});

t.test('Core refuses a mask or a marker in the place of a secret', async (t) => {
  await t.rejects(
    async () =>
      apply(
        fleetOf({ outbounds: [{ tag: 'a', protocol: 'socks', settings: { pass: '(secret)' } }] }),
      ),
    { message: /line 1: nodes\[0\]\.outbounds\[0\]\.settings: Holds \(secret\)/ },
  );
  await json('node', 'create', '--name', 'fra-1');
  const add = ['outbound', 'add', '--node', '1', '--tag', 'a', '--protocol', 'socks', '--settings'];
  for (const pass of ['(secret)', '<kept>']) {
    const run = await core(...add, JSON.stringify({ users: [{ pass }] }));
    t.equal(run.exitCode, 1);
    t.match(run.stderr, /must not hold <kept> or \(secret\)/);
  }
});

t.test('lists mask what a plan masks, unless they are called with --secrets', async (t) => {
  await apply(
    fleetOf({
      protocols: [
        {
          protocol: 'VLESS',
          port: 443,
          settings: { security: 'reality', reality: { target: 'www.example.com:443' } },
        },
      ],
      outbounds: [
        {
          tag: 'a',
          protocol: 'socks',
          settings: { address: '192.0.2.1', port: 1, user: 'u', pass: 'p1' },
        },
      ],
      rules: [{ user: ['0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11'], outboundTag: 'a' }],
    }),
  );
  const lists = [
    ['protocol', 'list', '--node', '1'],
    ['outbound', 'list', '--node', '1'],
    ['rule', 'list', '--node', '1'],
  ];
  const [vless] = await json<
    { settings: { reality: { privateKey: string; shortIds: string[] } } }[]
  >(...(lists[0] ?? []), '--secrets');
  const secrets = [
    vless?.settings.reality.privateKey,
    vless?.settings.reality.shortIds[0],
    'p1',
    '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11',
  ];
  const all = async (...more: string[]) =>
    (await Promise.all(lists.map((list) => core(...list, ...more))))
      .map((run) => run.stdout)
      .join();
  for (const value of secrets) {
    if (value === undefined) throw new Error('a protocol has a key and a short id');
    t.notMatch(await all(), `"${value}"`);
    t.notMatch(await all('--json'), `"${value}"`);
    t.match(await all('--secrets'), `"${value}"`);
    t.match(await all('--secrets', '--json'), `"${value}"`);
  }
  t.match(await all(), '"target":"www.example.com:443"');
  t.match(await all('--json'), '"address":"192.0.2.1"');
});

t.test('an export is a new file that only its owner can read', async (t) => {
  await json('node', 'create', '--name', 'fra-1');
  const file = path.join(folder, 'fleet.yaml');
  const other = path.join(folder, 'other');
  const modeOf = () => statSync(file).mode & 0o777;
  for (const more of [[], ['--secrets']]) {
    writeFileSync(file, 'before', { mode: 0o644 });
    const { ino } = statSync(file);
    await json('export', file, ...more);
    t.equal(modeOf(), 0o600);
    t.not(statSync(file).ino, ino, 'whoever has the old file open sees nothing of the new one');
    t.match(readFileSync(file, 'utf8'), 'fra-1');
  }
  writeFileSync(other, 'other');
  const linked = path.join(folder, 'linked.yaml');
  symlinkSync(other, linked);
  symlinkSync(other, `${linked}.tmp`);
  await json('export', linked, '--secrets');
  t.ok(lstatSync(linked).isFile(), 'the file replaces a link');
  t.equal(readFileSync(other, 'utf8'), 'other');

  mkdirSync(path.join(folder, 'dir'));
  for (const place of [path.join(folder, 'dir'), '/dev/stdout', '/dev/null', '/nowhere/x']) {
    const { exitCode, stderr } = await core('export', place, '--secrets');
    t.equal(exitCode, 1);
    t.match(stderr, `core: ${place} cannot be written: `);
  }
  t.ok(existsSync('/dev/null') && lstatSync('/dev/stdout').isSymbolicLink());
});

t.test('a failed write of a file leaves no temporary file behind', async (t) => {
  const dir = path.join(t.testdir({}), 'taken');
  mkdirSync(path.join(dir, 'file', 'inner'), { recursive: true });
  t.throws(() => writeDurable(path.join(dir, 'file'), 'x'));
  t.same(readdirSync(dir), ['file']);
});
