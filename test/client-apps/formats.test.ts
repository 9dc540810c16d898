import t from 'tap';
import { parse } from 'yaml';
import { type Connection, connectionsOf } from '../../src/client-apps/connection.ts';
import { base64List, linkList } from '../../src/client-apps/link-list.ts';
import { mihomoProfile } from '../../src/client-apps/mihomo.ts';
import { shareLink } from '../../src/client-apps/share-link.ts';
import { singBoxProfile } from '../../src/client-apps/sing-box.ts';
import { validateProtocolSettings } from '../../src/protocols/settings.ts';
import { goldenCases } from '../support/golden-cases.ts';

const uuid = '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11';
const place = { credential: uuid, host: 'node.example.com', port: 8443 };
const connections = goldenCases.flatMap(({ name, protocol, settings }) =>
  connectionsOf(protocol, validateProtocolSettings(protocol, settings), { ...place, name }),
);
const one = (name: string): Connection => {
  const found = connections.find((connection) => connection.name === name);
  if (found === undefined) throw new Error(`There is no golden case ${name}`);
  return found;
};
const proxiesOf = (given: readonly Connection[]) => parse(mihomoProfile(given).text).proxies;
const outboundsOf = (given: readonly Connection[]) =>
  JSON.parse(singBoxProfile(given).text).outbounds.filter(
    ({ type }: { type: string }) => !['selector', 'urltest', 'direct'].includes(type),
  );

t.test('lists hold the share links, and the Base64 one none for Telegram', async (t) => {
  t.equal(linkList(connections).text, connections.map((each) => `${shareLink(each)}\n`).join(''));
  const { text, leftOut } = base64List(connections);
  const decoded = Buffer.from(text, 'base64').toString();
  t.equal(decoded.split('\n').length - 1, connections.length - 1);
  t.notMatch(decoded, 'tg://');
  t.match(leftOut, [{ name: 'mtproto-telemt-tls' }]);
});

t.test('each connection is in the profile or left out with why', async (t) => {
  for (const profile of [mihomoProfile(connections), singBoxProfile(connections)]) {
    for (const { name, why } of profile.leftOut) t.match(why, /^(mihomo|sing-box) has /, name);
  }
  const { leftOut } = singBoxProfile(connections);
  t.equal(outboundsOf(connections).length + leftOut.length, connections.length);
  const mihomo = mihomoProfile(connections);
  t.equal(proxiesOf(connections).length + mihomo.leftOut.length, connections.length);
  t.match(mihomo.text, '#   trojan-xhttp-tls: mihomo has XHTTP with VLESS only\n');
});

t.test('mihomo', async (t) => {
  t.match(proxiesOf([one('vless-raw-reality')]), [
    {
      type: 'vless',
      server: 'node.example.com',
      port: 8443,
      uuid,
      flow: 'xtls-rprx-vision',
      tls: true,
      servername: 'www.example.com',
      'client-fingerprint': 'chrome',
      'reality-opts': { 'short-id': '0123456789abcdef' },
    },
  ]);
  t.match(proxiesOf([one('trojan-ws-tls')]), [
    {
      type: 'trojan',
      password: uuid,
      sni: 'vpn.example.com',
      network: 'ws',
      'ws-opts': { path: '/chat', headers: { Host: 'cdn.example.com' } },
    },
  ]);
  t.match(proxiesOf([one('hysteria2-hysteria-tls')]), [{ type: 'hysteria2', password: uuid }]);
  const plainTrojan: Connection = {
    ...(one('trojan-raw-tls') as Extract<Connection, { protocol: 'TROJAN' }>),
    security: { kind: 'none' },
  };
  t.match(mihomoProfile([plainTrojan]).leftOut, [{ why: 'mihomo has Trojan with TLS only' }]);
});

t.test('a text that YAML could take for something else stays a text', async (t) => {
  const trojan = one('trojan-raw-tls') as Extract<Connection, { protocol: 'TROJAN' }>;
  for (const password of ['12_34', '2020-01-01', 'no', '0x1f', '~', ': #', 'a\n- b', '"']) {
    const { text } = mihomoProfile([{ ...trojan, password }]);
    t.match(text, `password: ${JSON.stringify(password)}\n`);
    t.equal(parse(text).proxies[0].password, password);
  }
});

t.test('sing-box', async (t) => {
  t.match(outboundsOf([one('vless-raw-reality')]), [
    {
      type: 'vless',
      server: 'node.example.com',
      server_port: 8443,
      uuid,
      flow: 'xtls-rprx-vision',
      tls: { enabled: true, reality: { enabled: true, short_id: '0123456789abcdef' } },
    },
  ]);
  t.match(outboundsOf([one('vmess-grpc-tls')]), [
    { type: 'vmess', transport: { type: 'grpc', service_name: 'chat' } },
  ]);
  const all = JSON.parse(singBoxProfile([one('vless-raw-none')]).text);
  t.equal(all.route.final, 'Proxy');
  t.equal(JSON.parse(singBoxProfile([]).text).route.final, 'direct');
});

t.test('names differ, and are none that the profile uses itself', async (t) => {
  const vless = one('vless-raw-none');
  const names = ['n', 'n', 'Proxy', 'n 2', 'DIRECT'];
  const given = names.map((name) => ({ ...vless, name }));
  const found = proxiesOf(given).map(({ name }: { name: string }) => name);
  t.same(found, ['n', 'n 2', 'Proxy 2', 'n 2 2', 'DIRECT 2']);
  const tags = outboundsOf(given).map(({ tag }: { tag: string }) => tag);
  t.same(tags, ['n', 'n 2', 'Proxy 2', 'n 2 2', 'DIRECT']);
});

const withExtra = (extra: Record<string, unknown>): Connection => ({
  ...(one('vless-raw-none') as Extract<Connection, { protocol: 'VLESS' }>),
  transport: { network: 'xhttp', path: '/x', mode: 'packet-up', extra },
});

t.test('what a program cannot do is left out, and what it can is in its words', async (t) => {
  const vless = one('vless-raw-none') as Extract<Connection, { protocol: 'VLESS' }>;
  const encrypted: Connection = { ...vless, encryption: 'mlkem768x25519plus.native.0rtt.key' };
  t.match(proxiesOf([encrypted]), [{ encryption: 'mlkem768x25519plus.native.0rtt.key' }]);
  t.match(singBoxProfile([encrypted]).leftOut, [{ why: 'sing-box has no encryption of VLESS' }]);
  const [pin, other] = ['a'.repeat(64), 'b'.repeat(64)];
  const pinned = (...pins: string[]): Connection => ({
    ...vless,
    security: { kind: 'tls', serverName: 'a.example', fingerprint: 'chrome', pins },
  });
  t.match(proxiesOf([pinned(pin)]), [{ fingerprint: pin, 'client-fingerprint': 'chrome' }]);
  t.match(mihomoProfile([pinned(pin, other)]).leftOut, [
    { why: 'mihomo has one pin of a certificate at most' },
  ]);
  t.match(singBoxProfile([pinned(pin)]).leftOut, [{ why: /no pins of certificates/ }]);
  const extra = { xmux: { maxConcurrency: 4, hKeepAlivePeriod: 5 } };
  t.match(proxiesOf([withExtra(extra)]), [
    {
      'xhttp-opts': {
        'reuse-settings': { 'max-concurrency': '4', 'h-keep-alive-period': 5 },
      },
    },
  ]);
  const said = {
    ...{ sessionIDPlacement: 'header', sessionIDKey: 'X-S', uplinkHTTPMethod: 'PUT' },
    ...{ scMaxEachPostBytes: 4_000, xPaddingObfsMode: true, headers: { 'X-A': 'b' } },
  };
  t.match(proxiesOf([withExtra(said)]), [
    {
      'xhttp-opts': {
        ...{ 'session-placement': 'header', 'session-key': 'X-S', 'uplink-http-method': 'PUT' },
        ...{ 'sc-max-each-post-bytes': '4000', 'x-padding-obfs-mode': true },
        headers: { 'X-A': 'b' },
      },
    },
  ]);
  t.match(mihomoProfile([withExtra({ downloadSettings: {} })]).leftOut, [
    { why: 'mihomo has no XHTTP downloadSettings that is known to work' },
  ]);
});

t.test('Hysteria2 with obfs and pins', async (t) => {
  const hysteria = one('hysteria2-hysteria-tls') as Extract<Connection, { protocol: 'HYSTERIA2' }>;
  const given: Connection = { ...hysteria, obfs: { type: 'salamander', password: 'p' } };
  t.match(proxiesOf([given]), [{ obfs: 'salamander', 'obfs-password': 'p' }]);
  t.match(outboundsOf([given]), [{ obfs: { type: 'salamander', password: 'p' } }]);
  const pinned: Connection = { ...hysteria, pins: ['a'.repeat(64)] };
  t.match(proxiesOf([pinned]), [{ fingerprint: 'a'.repeat(64) }]);
  t.match(singBoxProfile([pinned]).leftOut, [{ why: /no pins of certificates/ }]);
});

t.test('each transport offers the ALPN that it can use, and gRPC names one host', async (t) => {
  const vless = one('vless-raw-none') as Extract<Connection, { protocol: 'VLESS' }>;
  const security = {
    kind: 'tls',
    serverName: 'a.example',
    fingerprint: 'chrome',
    alpn: ['h2', 'http/1.1'],
  } as const;
  const ws: Connection = { ...vless, security, transport: { network: 'ws', path: '/' } };
  t.same(proxiesOf([ws])[0].alpn, ['http/1.1']);
  t.same(outboundsOf([ws])[0].tls.alpn, ['http/1.1']);
  const grpc = (host: string): Connection => ({
    ...vless,
    security,
    transport: { network: 'grpc', serviceName: 'g', host },
  });
  t.same(outboundsOf([grpc('a.example')])[0].tls.alpn, ['h2']);
  for (const profile of [mihomoProfile, singBoxProfile]) {
    t.match(profile([grpc('b.example')]).leftOut, [{ why: /has no gRPC host of its own/ }]);
  }
});
