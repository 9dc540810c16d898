import fc from 'fast-check';
import t from 'tap';
import { applyFleet } from '../../src/fleet/apply.ts';
import { exportFleet } from '../../src/fleet/export.ts';
import { parseFleetFile } from '../../src/fleet/file.ts';
import type { PlanLine } from '../../src/fleet/plan-lines.ts';
import { createLogger } from '../../src/log.ts';
import { createNode } from '../../src/nodes/change.ts';
import { listNodes } from '../../src/nodes/node-state.ts';
import { listOutbounds } from '../../src/settings/outbounds.ts';
import { transportsOf } from '../../src/settings/port-transports.ts';
import { listProtocols } from '../../src/settings/protocols.ts';
import { listRules } from '../../src/settings/rules.ts';
import { migratePostgres } from '../../src/stores/migrate.ts';
import { createPool } from '../../src/stores/postgres.ts';
import { createSubscription } from '../../src/subscriptions/create.ts';
import { listLinks } from '../../src/subscriptions/links.ts';
import { createUser } from '../../src/subscriptions/users.ts';
import { printableLines } from '../../src/text.ts';
import { hiddenCharacters } from '../support/hidden-characters.ts';
import { freshStores } from '../support/stores.ts';

const options = { registrationSeconds: 60, staleSeconds: 30, offlineSeconds: 90 };
const { databaseUrl } = await freshStores(t);
const pool = createPool(databaseUrl, { max: 4 });
t.teardown(() => pool.end());
await migratePostgres(pool, createLogger('silent'));

const empty = async () => {
  await pool.query('TRUNCATE nodes, users RESTART IDENTITY CASCADE');
  await pool.query("DELETE FROM groups WHERE name <> 'default'");
};
t.beforeEach(async () => {
  await empty();
});

const apply = (text: string, given: { prune?: boolean; dryRun?: boolean } = {}) =>
  applyFleet(pool, parseFleetFile('fleet.yaml', text), {
    prune: false,
    dryRun: false,
    ...given,
    registrationSeconds: 60,
  });
const shorts = (lines: readonly PlanLine[]) => lines.map((line) => `${line.action} ${line.object}`);

const fra = `version: 1
nodes:
  - name: fra-1
    region: eu
    protocols:
      - protocol: VLESS
        port: 443
        settings: { security: reality, reality: { target: "www.example.com:443" } }
      - { protocol: TROJAN, port: 8443 }
    outbounds:
      - { tag: direct, protocol: freedom }
      - { tag: block, protocol: blackhole }
    rules:
      - { ip: ["geoip:private"], outboundTag: block }
`;

t.test('apply creates what the file declares, and a second apply changes nothing', async (t) => {
  const plan = await apply(fra, { dryRun: true });
  t.same(shorts(plan.lines), [
    'create node fra-1',
    'create protocol VLESS on port 443 of node fra-1',
    'create protocol TROJAN on port 8443 of node fra-1',
    'create outbound direct of node fra-1',
    'create outbound block of node fra-1',
    'create rule 1 of node fra-1',
  ]);
  t.same(await listNodes(pool, options), [], 'a dry run changes nothing');
  const applied = await apply(fra);
  t.match(applied.created, [{ nodeId: 1, name: 'fra-1', code: /^[0-9A-Z-]{23}$/ }]);
  t.notMatch(JSON.stringify(applied.lines), /privateKey","to":"[^(]/, 'keys are masked');
  const protocols = await listProtocols(pool, {});
  t.match(protocols, [
    { port: 443, settings: { reality: { privateKey: String } } },
    { port: 8443 },
  ]);
  t.match(await listOutbounds(pool, 1), [{ tag: 'direct' }, { tag: 'block' }]);
  t.match(await listRules(pool, 1), [{ position: 1, rule: { outboundTag: 'block' } }]);
  t.same((await apply(fra)).lines, [], 'the generated key stays');
  t.same(await listProtocols(pool, {}), protocols);
});

t.test(
  'apply changes, replaces and removes, and leaves what the file does not declare',
  async (t) => {
    await apply(fra);
    const userId = await createUser(pool, { name: 'u' });
    const { subscriptionId, links } = await createSubscription(pool, {
      userId,
      trafficLimitBytes: null,
      expiresAt: null,
    });
    const key = async () => JSON.stringify((await listProtocols(pool, {}))[0]?.settings['reality']);
    const before = await key();
    const changed = fra
      .replace('region: eu', 'region: us')
      .replace('{ target: "www.example.com:443" }', '{ target: "www.example.org:443" }')
      .replace('TROJAN, port: 8443', 'MTPROTO, port: 8443')
      .replace('{ tag: direct, protocol: freedom }', '{ tag: warp, protocol: freedom }');
    const { lines } = await apply(changed);
    t.same(shorts(lines), [
      'change node fra-1',
      'change protocol VLESS on port 443 of node fra-1',
      'remove protocol TROJAN on port 8443 of node fra-1',
      'create protocol MTPROTO on port 8443 of node fra-1',
      'create outbound warp of node fra-1',
      'remove outbound direct of node fra-1',
      'change order of the outbounds of node fra-1',
    ]);
    t.same(lines[0]?.changes, [{ field: 'region', from: 'eu', to: 'us' }]);
    t.match(lines[1]?.changes, [
      {
        field: 'settings.reality.target'.slice('settings.'.length),
        from: 'www.example.com:443',
        to: 'www.example.org:443',
      },
      { field: 'reality.serverNames', from: ['www.example.com'], to: ['www.example.org'] },
    ]);
    const keyOf = (text: string) => (JSON.parse(text) as { privateKey: string }).privateKey;
    t.equal(keyOf(await key()), keyOf(before), 'the key stays through a change of other settings');
    const uuids = (await listLinks(pool, subscriptionId)).map((link) => link.uuid);
    t.ok(uuids.includes(links[0]?.uuid ?? ''), 'the link stays, too');
    t.notOk(
      uuids.includes(links[1]?.uuid ?? ''),
      'a protocol that replaces another one has new links',
    );

    const bare = 'version: 1\nnodes: [{ name: fra-1 }, { name: ams-1 }]\n';
    t.same(shorts((await apply(bare)).lines), ['create node ams-1']);
    const none = 'version: 1\nnodes: [{ name: fra-1, outbounds: [], rules: [] }]\n';
    t.same(shorts((await apply(none)).lines), [
      'remove outbound warp of node fra-1',
      'remove outbound block of node fra-1',
      'remove rule 1 of node fra-1',
    ]);
    t.same(shorts((await apply(none, { prune: true })).lines), ['remove node ams-1']);
    t.match(await listNodes(pool, options), [{ name: 'fra-1' }]);
  },
);

t.test('apply refuses a wrong file with the lines at fault, before anything changes', async (t) => {
  const refused = async (text: string, ...lines: (string | RegExp)[]) => {
    await t.rejects(async () => apply(text), { code: 'INVALID_ARGUMENT' });
    const message = await Promise.resolve()
      .then(() => apply(text))
      .then(
        () => '',
        (error: Error) => error.message,
      );
    for (const line of lines) t.match(message, line);
  };
  await refused('version: 1\nnodes: [\n', /^fleet\.yaml: line \d+: /);
  await refused('version: 1\nnodes: []\nversion: 1\n', /line 3: Map keys must be unique/);
  await refused('version: 1\nnodes: *gone\n', /fleet\.yaml: .*gone/);
  await refused('', 'fleet.yaml: line 1: ');
  await refused('version: 2\nnodes: []\n', 'line 1: version: ');
  await refused(fra.replace('region: eu', 'regoin: eu'), 'line 4: nodes[0].regoin: Unknown field');
  await refused(fra.replace('port: 443', 'port: 70000'), 'line 7: nodes[0].protocols[0].port: ');
  await refused(fra.replace('8443', '443'), 'line 9: nodes[0].protocols[1].port: TCP port 443');
  await refused(fra.replace('tag: block', 'tag: direct'), 'line 12: ', 'direct comes twice');
  await refused(fra.replace('tag: block', 'tag: (others)'), 'line 12: ', '(others) is reserved');
  await refused(
    `${fra}  - { name: fra-1 }\n`,
    'line 15: nodes[1].name: The node fra-1 comes twice',
  );
  await refused(fra.replace('security: reality', 'security: odd'), /line 8: .*security/);
  await refused(fra.replace('outboundTag: block', 'outboundTag: nowhere'), /line 14: .*nowhere/);
  await refused(
    fra.replace('region: eu', 'xray: { dns: { servers: [7] } }'),
    /line 4: nodes\[0\]\.xray\.dns\.servers\[0\]: /,
  );
  await refused(
    fra.replace('region: eu', 'xray: { balancers: [{ tag: b, selector: [gone] }] }'),
    /line 4: nodes\[0\]\.xray: balancer b selects gone/,
  );
  await refused(
    fra.replace('port: 8443', 'groups: [premuim], port: 8443'),
    'line 9: nodes[0].protocols[1].groups[0]: There is no group premuim; add it to groups at the top',
  );
  await refused(fra.replace('ip: ["geo', 'ipp: ["geo'), 'line 14: nodes[0].rules[0].ipp: Unknown');
  await refused(fra.replace('eu', '"\\0"'), /line 4: .*U\+0000/);
  await refused(
    fra.replace('region: eu', 'region: "a\\u202eb"').replace('tag: direct', 'tag: "\\x9b"'),
    'line 4: nodes[0].region: Must not hold the character U+202E (it is at place 2)',
    'line 11: nodes[0].outbounds[0].tag: Must not hold the character U+009B (it is at place 1)',
  );
  await refused(fra.replace('fra-1', '"a\\u200b"'), 'line 3: nodes[0].name: ', 'U+200B');
  await refused(
    fra.replace('region: eu', 'host: https://fra-1.example.net/'),
    'line 4: nodes[0].host: Must be a host name',
  );
  await refused(fra.replace('region: eu', 'ip: fe80::1%eth0'), 'line 4: nodes[0].ip: Must be an');
  await refused(fra.replace('"geoip:private"', '"a\\eb"'), /line 14: .*rules\[0\].*U\+001B/);
  await refused(
    fra.replace('{ target', '{ privateKey: <kept>, target'),
    /line 8: .*privateKey: Is a secret that the file leaves out/,
  );
  t.same(await listNodes(pool, options), []);
  for (const region of ['a', 'b']) {
    await createNode(pool, { name: 'twin', region, host: '', ip: '' }, options);
  }
  await refused(fra, /Nodes 1 and 2 are both called twin/);
});

const word = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 });
const hidden = Object.values(hiddenCharacters).filter((one) => !/[\0\p{Cs}]/u.test(one));
const unit = fc.oneof(
  fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }),
  fc.constantFrom(...hidden),
);
const storableText = fc
  .string({ unit, minLength: 1, maxLength: 12 })
  .filter((text) => !text.includes('\u0000'));
const name = word.filter((text) => !/[\p{C}\p{Zl}\p{Zp}]/u.test(text));
const json = fc.jsonValue({ depthSize: 'small', stringUnit: unit }).filter((value) => {
  const text = JSON.stringify(value);
  return !text.includes('\\u0000') && !/\\ud[89a-f]/i.test(text) && !text.includes('__proto__');
});
const object = fc.dictionary(
  storableText.filter((name) => name !== '__proto__'),
  json,
  { maxKeys: 3 },
);
const secrets = fc.record({ password: storableText, users: fc.array(fc.record({ id: word })) });
const secretRaw = {
  outbounds: [{ tag: 'raw-up', protocol: 'freedom' }],
  extra: { token: 'T0PSECRET' },
};
const xraySettings = fc.record(
  {
    domainStrategy: fc.constantFrom('AsIs', 'IPIfNonMatch'),
    dns: fc.constant({
      hosts: { 'T0PSECRET.example.com': '192.0.2.1' },
      servers: [
        '1.1.1.1',
        { address: 'https://u:T0PSECRET@dns.example/q', domains: ['a.example'] },
      ],
    }),
    balancers: fc.constant([{ tag: 'all', selector: ['raw'], strategy: { type: 'leastPing' } }]),
    observatory: fc.constant({ subjectSelector: ['raw-up'], probeInterval: '1m' }),
    raw: fc.constant(secretRaw),
  },
  { requiredKeys: ['observatory', 'raw'] },
);
const outboundOptions = fc.record(
  {
    sendThrough: fc.constantFrom('origin', '192.0.2.7'),
    targetStrategy: fc.constant('UseIPv4'),
    streamSettings: fc.constant({ sockopt: { mark: 7 } }),
    mux: fc.constant({ enabled: true, concurrency: 4 }),
  },
  { requiredKeys: [] },
);
const groupNames = ['default', 'premium', 'Ärger', 'z-1'];
const fleetNode = fc
  .record({
    region: fc.option(name, { nil: '' }),
    host: fc.constantFrom('', 'h.example'),
    protocols: fc.uniqueArray(
      fc.record({
        port: fc.constantFrom(1, 443, 65_535),
        groups: fc.option(fc.uniqueArray(fc.constantFrom(...groupNames)), { nil: undefined }),
        kind: fc.constantFrom(
          { protocol: 'VLESS', settings: {} },
          {
            protocol: 'VLESS',
            settings: { security: 'reality', reality: { target: 'www.example.com:443' } },
          },
          { protocol: 'TROJAN', settings: { network: 'ws', ws: { path: '/a' } } },
          { protocol: 'MTPROTO', settings: {} },
          { protocol: 'SHADOWSOCKS', settings: { network: 'tcp' } },
          { protocol: 'SHADOWSOCKS', settings: { network: 'udp' } },
          { protocol: 'HYSTERIA2', settings: { tls: { certificateFile: '/c', keyFile: '/k' } } },
        ),
      }),
      {
        maxLength: 4,
        selector: ({ port, kind }) => `${port}/${transportsOf(kind.protocol, kind.settings)}`,
      },
    ),
    outbounds: fc.uniqueArray(
      fc.record({ tag: name, settings: fc.oneof(object, secrets), options: outboundOptions }),
      { maxLength: 3, selector: (one) => one.tag },
    ),
    xray: fc.option(xraySettings, { nil: {} }),
    ports: fc.array(fc.integer({ min: 1, max: 65_535 }), { maxLength: 3 }),
  })
  .map(({ region, host, protocols, outbounds, ports, xray }) => ({
    region,
    host,
    xray,
    protocols: protocols.map(({ kind, ...place }) => ({ ...place, ...kind })),
    outbounds: outbounds.map(({ tag, settings, options }) => ({
      tag,
      protocol: 'freedom',
      settings: {},
      ...options,
      raw: { settings },
    })),
    rules: ports.map((port) => ({ port, outboundTag: outbounds.at(-1)?.tag ?? 'direct' })),
  }));

const tls = '{ tls: { certificateFile: /c, keyFile: /k } }';
const shared = `version: 1
nodes:
  - name: fra-1
    protocols:
      - { protocol: VLESS, port: 443 }
      - { protocol: HYSTERIA2, port: 443, settings: ${tls} }
      - { protocol: SHADOWSOCKS, port: 8443, settings: { network: tcp } }
      - { protocol: SHADOWSOCKS, port: 8443, settings: { network: udp } }
`;

t.test('TCP and UDP share a port, and protocols can swap ports', async (t) => {
  await apply(shared);
  const list = async () =>
    (await listProtocols(pool, {})).map(({ nodeProtocolId, protocol, port, settings }) => ({
      nodeProtocolId,
      at: `${protocol} ${port}/${transportsOf(protocol, settings)}`,
    }));
  const before = await list();
  t.same(
    before.map(({ at }) => at),
    ['VLESS 443/tcp', 'HYSTERIA2 443/udp', 'SHADOWSOCKS 8443/tcp', 'SHADOWSOCKS 8443/udp'],
  );
  t.same((await apply(shared)).lines, [], 'apply finds each of them again');
  const sniffing = shared
    .replace('network: udp', 'network: udp, sniffing: false')
    .replace('VLESS, port: 443', 'VLESS, port: 443, settings: { sniffing: false }');
  t.same(shorts((await apply(sniffing)).lines), [
    'change protocol VLESS on port 443 of node fra-1',
    'change protocol SHADOWSOCKS on port 8443 of node fra-1',
  ]);
  t.same(await list(), before, 'the same protocols, with their links');
  t.match((await listProtocols(pool, {}))[3], { settings: { network: 'udp', sniffing: false } });

  const swapped = shared
    .replaceAll('8443', '1')
    .replaceAll('443', '8443')
    .replaceAll(' 1,', ' 443,');
  t.same(
    (await apply(swapped)).lines.map(({ action }) => action),
    ['change', 'change', 'remove', 'remove', 'create', 'create'],
    'the only VLESS and the only Hysteria2 move; nobody can tell which Shadowsocks is which',
  );
  t.same(
    (await list()).map(({ at }) => at),
    ['VLESS 8443/tcp', 'HYSTERIA2 8443/udp', 'SHADOWSOCKS 443/tcp', 'SHADOWSOCKS 443/udp'],
  );
  const ids = await list();
  // One Shadowsocks takes the place of both.
  const one = swapped
    .replace('network: tcp', 'network: "tcp,udp"')
    .replace(/.*network: udp.*\n/, '');
  await apply(one);
  t.same((await list())[2], { ...ids[2], at: 'SHADOWSOCKS 443/tcp,udp' });
  // It gives its UDP port to another protocol.
  await apply(
    `${one.replace('"tcp,udp"', 'tcp')}      - { protocol: HYSTERIA2, port: 443, settings: ${tls} }\n`,
  );
  t.same((await list())[2], ids[2]);
  t.match((await list())[3], { at: 'HYSTERIA2 443/udp' });

  await t.rejects(async () => apply(shared.replace('network: tcp', '')), {
    message: 'fleet.yaml: line 8: nodes[0].protocols[3].port: UDP port 8443 comes twice',
  });
  await t.rejects(async () => apply(shared.replace('VLESS', 'SHADOWSOCKS')), {
    message: 'fleet.yaml: line 6: nodes[0].protocols[1].port: UDP port 443 comes twice',
  });
});

t.test('apply of an export changes nothing', async (t) => {
  const fleets = fc.array(fc.tuple(name, fleetNode), { maxLength: 3 });
  await fc.assert(
    fc.asyncProperty(fleets, async (pairs) => {
      await empty();
      const nodes = [...new Map(pairs)].map(([name, node]) => ({ name, ...node }));
      await apply(JSON.stringify({ version: 1, groups: groupNames, nodes }));
      const masked = (await exportFleet(pool, { secrets: false })).text;
      const whole = (await exportFleet(pool, { secrets: true })).text;
      if (/privateKey: (?!<kept>)|T0PSECRET/.test(masked)) throw new Error('a key was exported');
      for (const text of [masked, whole]) {
        if (printableLines(text) !== text)
          throw new Error('a terminal would not show the text as it is');
        const { lines } = await apply(text, { prune: true });
        if (lines.length > 0) throw new Error(JSON.stringify(lines));
      }
      await empty();
      await apply(whole);
      const again = (await exportFleet(pool, { secrets: true })).text;
      if (again !== whole) throw new Error(`${whole}\n---\n${again}`);
    }),
    { numRuns: 25 },
  );
  t.pass('25 fleets');
});

const withXray = (xray: string) => fra.replace('region: eu', `region: eu\n    xray: ${xray}`);

t.test("what a node's Xray has beside its lists is in the file", async (t) => {
  const dns = '{ servers: [1.1.1.1], tag: dns-in }';
  const rule = '{ inboundTag: [dns-in], outboundTag: direct }';
  const ruled = withXray(`{ dns: ${dns}, raw: { log: { access: /a } } }`);
  const text = ruled.replace(/- { ip.*/, `- ${rule}`);
  await apply(text);
  const settings = async () =>
    (await pool.query<{ xray: object }>('SELECT xray_settings AS xray FROM nodes')).rows[0]?.xray;
  t.same(await settings(), {
    dns: { servers: ['1.1.1.1'], tag: 'dns-in' },
    raw: { log: { access: '/a' } },
  });
  t.same((await apply(text)).lines, []);
  t.same((await apply(fra.replace(/- { ip.*/, `- ${rule}`))).lines, [], 'left out, it stays');
  await t.rejects(apply(text.replace('tag: dns-in', 'tag: dns-out')), {
    message: /line 15: .*names the inbound dns-in, which the node would not have/,
  });
  const { change_seq: before } = (await pool.query('SELECT change_seq FROM nodes')).rows[0];
  const kept = withXray('{ domainStrategy: IPIfNonMatch, raw: <kept> }').replace(
    / +rules:[\s\S]*/,
    '    rules: []\n',
  );
  const { lines } = await apply(kept);
  t.match(lines, [
    { action: 'remove', object: 'rule 1 of node fra-1' },
    {
      action: 'change',
      object: 'Xray settings of node fra-1',
      changes: [{ field: 'xray.dns' }, { field: 'xray.domainStrategy', to: 'IPIfNonMatch' }],
    },
  ]);
  t.same(await settings(), { domainStrategy: 'IPIfNonMatch', raw: { log: { access: '/a' } } });
  const { change_seq: after } = (await pool.query('SELECT change_seq FROM nodes')).rows[0];
  t.equal(after, before + 1, 'a worker publishes the change');
  const cleared = withXray('{}').replace(/ +rules:[\s\S]*/, '');
  t.match((await apply(cleared)).lines[0]?.changes, [
    { field: 'xray.raw', from: '(secret)' },
    { field: 'xray.domainStrategy' },
  ]);
  t.same(await settings(), {});
});

t.test('a protocol that leaves a group says how many links end', async (t) => {
  const grouped = (vless: string, trojan: string) =>
    fra
      .replace('version: 1', 'version: 1\ngroups: [premium, basic]')
      .replace('- protocol: VLESS', `- protocol: VLESS\n        groups: [${vless}]`)
      .replace('TROJAN, ', `TROJAN, groups: [${trojan}], `);
  const { lines: made } = await apply(grouped('default', 'default, premium'));
  t.same(shorts(made).slice(0, 3), [
    'create group premium',
    'create group basic',
    'create node fra-1',
  ]);
  const userId = await createUser(pool, { name: 'u' });
  const add = (groups: string[]) =>
    createSubscription(pool, { userId, trafficLimitBytes: null, expiresAt: null, groups });
  await add(['default']);
  await add(['default', 'premium']);
  await add(['premium']);
  const disabled = await add(['default']);
  await pool.query("UPDATE subscriptions SET status = 'disabled' WHERE id = $1", [
    disabled.subscriptionId,
  ]);
  const node = async () =>
    (await pool.query('SELECT change_seq AS seq, settings_seq AS settings FROM nodes')).rows[0];
  const before = await node();
  const { lines, removed } = await apply(grouped('premium', 'premium, basic'));
  t.match(lines, [
    {
      action: 'change',
      object: 'protocol VLESS on port 443 of node fra-1',
      changes: [{ field: 'groups', from: ['default'], to: ['premium'] }],
      links: { links: 2, linksInUse: 1 },
    },
    { action: 'change', links: { links: 2, linksInUse: 1 } },
  ]);
  t.match(removed, { nodes: 0, protocols: 0, links: 4, linksInUse: 2 });
  const { rows } = await pool.query<{ count: number }>(
    `SELECT count(DISTINCT (s.subscription_id, p.node_protocol_id))::integer AS count
     FROM subscription_groups s JOIN protocol_groups p USING (group_id)`,
  );
  t.equal(rows[0]?.count, 4, '2 subscriptions are in premium');
  const after = await node();
  t.equal(after?.['seq'], before?.['seq'] + 1, 'a worker publishes the node');
  t.equal(after?.['settings'], before?.['settings'], 'a rollback goes on');
  t.same((await apply(fra)).lines, [], 'a file without groups leaves them');
});

t.test('protocols of one kind on one port are told apart by their addresses', async (t) => {
  const on = (address: string, more = '') =>
    `      - { protocol: VLESS, port: 443, settings: { listen: "${address}"${more} } }\n`;
  const head = 'version: 1\nnodes:\n  - name: fra-1\n    protocols:\n';
  await apply(`${head}${on('192.0.2.1')}${on('2001:db8::2')}`);
  const { lines } = await apply(
    `${head}${on('2001:DB8:0::2', ', sniffing: false')}${on('192.0.2.1')}`,
  );
  t.match(lines, [
    { changes: [{ field: 'listen' }, { field: 'sniffing', from: true, to: false }] },
  ]);
  t.match(await listProtocols(pool, {}), [
    { nodeProtocolId: 1, settings: { listen: '192.0.2.1', sniffing: true } },
    { nodeProtocolId: 2, settings: { listen: '2001:DB8:0::2', sniffing: false } },
  ]);
});
