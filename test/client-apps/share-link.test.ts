import t from 'tap';
import { connectionsOf } from '../../src/client-apps/connection.ts';
import { connectionName } from '../../src/client-apps/connection-name.ts';
import { otherShareLinks, shareLink } from '../../src/client-apps/share-link.ts';
import type { VpnProtocol } from '../../src/contract/enums.ts';
import { validateProtocolSettings } from '../../src/protocols/settings.ts';
import { shadowsocksUserKey } from '../../src/protocols/shadowsocks-key.ts';
import { goldenCases } from '../support/golden-cases.ts';

const uuid = '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11';
const place = { credential: uuid, host: 'node.example.com', port: 8443, name: 'Frankfurt 1 & Ω#' };
const fragment = 'Frankfurt%201%20%26%20%CE%A9%23';

/** The share link of each public face. */
function linksOf(protocol: VpnProtocol, settings: object, at = place): string[] {
  const stored = validateProtocolSettings(protocol, settings);
  return connectionsOf(protocol, stored, at).map(shareLink);
}

function linkOf(name: string, overrides: Partial<typeof place> = {}): string {
  const given = goldenCases.find((one) => one.name === name);
  if (given === undefined) throw new Error(`There is no golden case ${name}`);
  const [link = ''] = linksOf(given.protocol, given.settings, { ...place, ...overrides });
  return link;
}

function queryOf(uri: string): Record<string, string> {
  return Object.fromEntries(new URL(uri).searchParams);
}

// https://github.com/XTLS/Xray-core/discussions/716: every value percent-encoded, each field once.
t.test('vless', async (t) => {
  t.equal(
    linkOf('vless-raw-none'),
    `vless://${uuid}@node.example.com:8443?encryption=none&type=tcp&security=none#${fragment}`,
  );
  t.equal(
    linkOf('vless-ws-tls'),
    `vless://${uuid}@node.example.com:8443?encryption=none&type=ws&security=tls&path=%2Fchat` +
      `&host=cdn.example.com&sni=vpn.example.com&fp=chrome#${fragment}`,
  );
  t.same(queryOf(linkOf('vless-raw-reality')), {
    encryption: 'none',
    type: 'tcp',
    security: 'reality',
    flow: 'xtls-rprx-vision',
    sni: 'www.example.com',
    fp: 'chrome',
    pbk: '7xhH4b_VkliBxGulljcyPOH-bYUA2dl-XAdZAsfhk04',
    sid: '0123456789abcdef',
  });
  t.same(queryOf(linkOf('vless-grpc-tls')), {
    encryption: 'none',
    type: 'grpc',
    security: 'tls',
    mode: 'gun',
    serviceName: 'chat',
    sni: 'vpn.example.com',
    fp: 'chrome',
  });
  t.same(queryOf(linkOf('vless-xhttp-tls')), {
    encryption: 'none',
    type: 'xhttp',
    security: 'tls',
    path: '/chat',
    host: 'cdn.example.com',
    mode: 'auto',
    sni: 'vpn.example.com',
    fp: 'chrome',
  });
  t.notMatch(linkOf('vless-raw-reality'), 'yBaw532IIUNuQWDTncozoBaLJmcd1JZzvsHUgVPxMk8');
});

t.test('trojan', async (t) => {
  t.equal(
    linkOf('trojan-raw-tls'),
    `trojan://${uuid}@node.example.com:8443?type=tcp&security=tls&sni=vpn.example.com&fp=chrome` +
      `#${fragment}`,
  );
});

// https://github.com/2dust/v2rayN/wiki/Description-of-VMess-share-link: Base64 of JSON of strings.
t.test('vmess', async (t) => {
  const fieldsOf = (uri: string): unknown => {
    t.match(uri, /^vmess:\/\/[A-Za-z0-9+/]+=*$/);
    return JSON.parse(Buffer.from(uri.slice('vmess://'.length), 'base64').toString());
  };
  const common = {
    v: '2',
    ps: place.name,
    add: 'node.example.com',
    port: '8443',
    id: uuid,
    aid: '0',
    scy: 'aes-128-gcm',
    tls: 'tls',
    sni: 'vpn.example.com',
    fp: 'chrome',
  };
  t.same(fieldsOf(linkOf('vmess-ws-tls')), {
    ...common,
    net: 'ws',
    type: 'none',
    host: 'cdn.example.com',
    path: '/chat',
  });
  t.same(fieldsOf(linkOf('vmess-grpc-tls')), {
    ...common,
    net: 'grpc',
    type: 'gun',
    host: '',
    path: 'chat',
  });
  t.match(fieldsOf(linkOf('vmess-raw-tls')), { net: 'tcp', type: 'none', host: '', path: '' });
});

t.test('vmess in its URI form beside the other', async (t) => {
  const stored = validateProtocolSettings('VMESS', { network: 'ws', ws: { path: '/p' } });
  const [connection] = connectionsOf('VMESS', stored, place);
  t.same(otherShareLinks(connection), [
    `vmess://${uuid}@node.example.com:8443?encryption=aes-128-gcm&type=ws&security=none&path=%2Fp#${fragment}`,
  ]);
  const [vless] = connectionsOf('VLESS', validateProtocolSettings('VLESS', {}), place);
  t.same(otherShareLinks(vless), []);
});

// https://shadowsocks.org/doc/sip002.html: plain and percent-encoded with a 2022 method.
t.test('shadowsocks', async (t) => {
  const serverKey = 'AAECAwQFBgcICQoLDA0ODw==';
  const key = shadowsocksUserKey('2022-blake3-aes-128-gcm', serverKey, uuid);
  const uri = linkOf('shadowsocks-raw-aes128gcm');
  const user = uri.slice('ss://'.length, uri.indexOf('@'));
  t.match(user, /^2022-blake3-aes-128-gcm:[A-Za-z0-9%]+$/);
  t.equal(decodeURIComponent(user), `2022-blake3-aes-128-gcm:${serverKey}:${key}`);
  t.equal(uri.slice(uri.indexOf('@')), `@node.example.com:8443#${fragment}`);
});

// https://v2.hysteria.network/docs/developers/URI-Scheme
t.test('hysteria2', async (t) => {
  t.equal(
    linkOf('hysteria2-hysteria-tls'),
    `hysteria2://${uuid}@node.example.com:8443/?sni=vpn.example.com#${fragment}`,
  );
});

t.test('a colon inside a password of hysteria2 stays, so that mihomo reads it', async (t) => {
  const userOf = (credential: string): string => {
    const uri = linkOf('hysteria2-hysteria-tls', { credential });
    return uri.slice('hysteria2://'.length, uri.indexOf('@'));
  };
  t.equal(userOf('alice:p w'), 'alice:p%20w');
  t.equal(userOf('a:b:c'), 'a:b%3Ac');
  for (const credential of ['a:', ':b', ':', '::', 'a b', 'ü']) {
    t.equal(userOf(credential), encodeURIComponent(credential));
  }
});

// https://core.telegram.org/api/links#mtproxy-links, and telemt's README for the prefixes.
t.test('mtproto', async (t) => {
  const secret = '0b8f5f263c1d4e2a9a476f1f0c5d7e11';
  const domain = '7777772e6578616d706c652e636f6d';
  t.equal(
    linkOf('mtproto-telemt-tls'),
    `tg://proxy?server=node.example.com&port=8443&secret=ee${secret}${domain}`,
  );
  const withModes = (modes: object): string => {
    return linksOf('MTPROTO', { modes })[0] ?? '';
  };
  t.match(withModes({ tls: false, secure: true }), new RegExp(`secret=dd${secret}$`));
  t.match(withModes({ tls: false, classic: true }), new RegExp(`secret=${secret}$`));
  t.match(withModes({ tls: true, secure: true }), /secret=ee/);
});

t.test('an IPv6 address is in brackets if the URI has an authority', async (t) => {
  const host = '2001:db8::1';
  for (const name of ['vless-raw-none', 'trojan-raw-tls', 'hysteria2-hysteria-tls']) {
    const url = new URL(linkOf(name, { host }));
    t.match(url.href, '@[2001:db8::1]:8443', name);
    t.equal(url.port, '8443');
  }
  t.match(linkOf('mtproto-telemt-tls', { host }), 'server=2001%3Adb8%3A%3A1&');
});

t.test('the server name for TLS is never an address', async (t) => {
  const tls = { certificateFile: '/c.pem', keyFile: '/k.pem' };
  const given: [VpnProtocol, object][] = [
    ['TROJAN', { security: 'tls', tls }],
    ['HYSTERIA2', { tls }],
  ];
  for (const [protocol, settings] of given) {
    const sniAt = (host: string) =>
      queryOf(linksOf(protocol, settings, { ...place, host })[0] ?? '')['sni'];
    t.equal(sniAt('node.example.com'), 'node.example.com');
    t.equal(sniAt('192.0.2.1'), undefined);
    t.equal(sniAt('2001:db8::1'), undefined);
  }
});

t.test('each public face is a link, with a name of its own', async (t) => {
  const pin = `${'AB:'.repeat(31)}AB`;
  const links = linksOf('VLESS', {
    network: 'ws',
    ws: { path: '/inner', host: 'inner.example.com' },
    listen: '/run/core/ws.sock,0660',
    fingerprint: 'firefox',
    faces: [
      { name: 'cdn', host: 'cdn.example.com', port: 443, security: 'tls', path: '/outer' },
      { host: '192.0.2.9', port: 80, security: 'none', httpHost: 'plain.example.com' },
      { sni: 'front.example.com', alpn: ['http/1.1'], fingerprint: 'ios', pins: [pin] },
    ],
  });
  const common = { encryption: 'none', type: 'ws', path: '/inner', host: 'inner.example.com' };
  t.same(links.map(queryOf), [
    { ...common, security: 'tls', path: '/outer', sni: 'cdn.example.com', fp: 'firefox' },
    { ...common, security: 'none', host: 'plain.example.com' },
    {
      ...common,
      security: 'tls',
      sni: 'front.example.com',
      alpn: 'http/1.1',
      fp: 'ios',
      pcs: 'ab'.repeat(32),
    },
  ]);
  t.same(
    links.map((link) => new URL(link).host),
    ['cdn.example.com:443', '192.0.2.9:80', 'node.example.com:8443'],
  );
  t.same(
    links.map((link) => decodeURIComponent(new URL(link).hash)),
    [`#${place.name} cdn`, `#${place.name} 2`, `#${place.name} 3`],
  );
});

t.test(
  'an inbound that only the node itself reaches is behind a proxy that ends TLS',
  async (t) => {
    const securityOf = (
      protocol: VpnProtocol,
      settings: object,
      port = 443,
    ): string | undefined => {
      const at = { ...place, host: 'cdn.example.com', port };
      return queryOf(linksOf(protocol, settings, at)[0] ?? '')['security'];
    };
    const ws = { network: 'ws', ws: { path: '/p', host: 'cdn.example.com' } };
    t.equal(securityOf('VLESS', { ...ws, listen: '127.0.0.1' }), 'tls');
    t.equal(securityOf('VLESS', { ...ws, listen: '::1' }), 'tls');
    t.equal(securityOf('VLESS', { ...ws, listen: '@core' }), 'tls');
    t.equal(securityOf('TROJAN', { listen: '127.0.0.1' }), 'tls');
    t.equal(securityOf('VLESS', { ...ws, listen: '127.0.0.1' }, 80), 'none');
    t.equal(
      securityOf('VLESS', { ...ws, listen: '127.0.0.1', faces: [{ security: 'none' }] }),
      'none',
    );
    t.equal(securityOf('VLESS', ws), 'none');
  },
);

t.test('a link says all that a client needs of a transport', async (t) => {
  const [xhttp = ''] = linksOf('VLESS', {
    network: 'xhttp',
    xhttp: {
      path: '/x',
      extra: {
        xPaddingBytes: '100-1000',
        scMaxEachPostBytes: 500_000,
        scMaxBufferedPosts: 30,
        xmux: { maxConnections: 4 },
        downloadSettings: { address: 'down.example.com', port: 443 },
      },
    },
  });
  t.same(JSON.parse(queryOf(xhttp)['extra'] ?? ''), {
    xPaddingBytes: '100-1000',
    scMaxEachPostBytes: 500_000,
    xmux: { maxConnections: 4 },
    downloadSettings: {
      address: 'down.example.com',
      port: 443,
      network: 'xhttp',
      security: 'tls',
    },
  });
  // Former names of Xray, and the forms in which mihomo reads the values.
  const [session = ''] = linksOf('VLESS', {
    network: 'xhttp',
    xhttp: {
      path: '/x?a=1',
      mode: 'packet-up',
      extra: {
        ...{ sessionIDPlacement: 'header', sessionIDKey: 'X-S', seqPlacement: 'query' },
        ...{ uplinkHTTPMethod: 'PUT', xPaddingBytes: 200, scMaxEachPostBytes: '4000-4000' },
        scMinPostsIntervalMs: '5-10',
      },
    },
  });
  t.match(queryOf(session), { path: '/x/?a=1' });
  t.same(JSON.parse(queryOf(session)['extra'] ?? ''), {
    ...{ sessionIDPlacement: 'header', sessionIDKey: 'X-S', seqPlacement: 'query' },
    ...{ sessionPlacement: 'header', sessionKey: 'X-S' },
    ...{ uplinkHTTPMethod: 'PUT', uplinkHttpMethod: 'PUT', xPaddingBytes: '200' },
    ...{ scMaxEachPostBytes: 4_000, scMinPostsIntervalMs: '5-10' },
  });
  const tls = { certificateFile: '/c.pem', keyFile: '/k.pem' };
  const [hysteria = ''] = linksOf('HYSTERIA2', {
    tls,
    pins: ['0'.repeat(64)],
    obfs: { type: 'salamander', password: 'a&b?' },
  });
  t.same(queryOf(hysteria), {
    sni: 'node.example.com',
    obfs: 'salamander',
    'obfs-password': 'a&b?',
    pinSHA256: '0'.repeat(64),
  });
  const trojan = linksOf('TROJAN', {}, { ...place, credential: 'p@ss/wörd 1' })[0] ?? '';
  t.equal(trojan.slice(0, trojan.indexOf('@')), 'trojan://p%40ss%2Fw%C3%B6rd%201');
});

t.test('the names of a node’s connections differ', async (t) => {
  const of = { nodeName: 'fra-1', protocol: 'VLESS', port: 443 };
  t.equal(connectionName(of), 'fra-1 VLESS 443');
  t.equal(connectionName({ ...of, protocolName: 'vless-443' }), 'fra-1 vless-443');
});
