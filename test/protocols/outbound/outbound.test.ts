import t from 'tap';
import { issuePath } from '../../../src/errors.ts';
import {
  type Outbound,
  outboundFaults,
  validateOutbound,
} from '../../../src/protocols/outbound/outbound.ts';

// Whether Xray agrees is what `npm run conformance` tests, with random outbounds.

type Given = Omit<Outbound, 'tag' | 'settings'> & { settings?: Record<string, unknown> };
const faultsOf = (given: Given): string[] =>
  outboundFaults({ settings: {}, ...given, tag: 'a' }).map(
    ({ path, message }) => `${issuePath(path)}: ${message}`,
  );

const id = '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11';
const key = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=';
const realityKey = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8';
const place = { address: 'up.example.com', port: 443 };
const vless = { ...place, id, encryption: 'none' };
const tls = { security: 'tls', tlsSettings: { serverName: 'up.example.com' } };
const hysteriaSettings = { version: 2, auth: 'secret' };

const accepted: Given[] = [
  { protocol: 'freedom' },
  {
    protocol: 'freedom',
    settings: { domainStrategy: 'useipv4', redirect: ':53' },
    sendThrough: 'origin',
  },
  {
    protocol: 'freedom',
    settings: { fragment: { packets: 'tlshello', length: '100-200', interval: 10 } },
  },
  { protocol: 'freedom', settings: { noises: [{ type: 'rand', packet: '10-20', delay: 5 }] } },
  { protocol: 'freedom', settings: { finalRules: [{ action: 'block', ip: ['geoip:private'] }] } },
  { protocol: 'blackhole', settings: { response: { type: 'http' } } },
  { protocol: 'dns', settings: { rules: [{ action: 'hijack', qType: '1,28' }] } },
  { protocol: 'loopback', settings: { inboundTag: 'again' } },
  { protocol: 'http', settings: { ...place, user: 'u', pass: 'p', headers: { 'X-A': 'b' } } },
  { protocol: 'socks', settings: { servers: [{ ...place, users: [{ user: 'u', pass: 'p' }] }] } },
  { protocol: 'shadowsocks', settings: { ...place, method: 'aes-256-gcm', password: 'any text' } },
  {
    protocol: 'shadowsocks',
    settings: {
      servers: [{ ...place, method: '2022-blake3-aes-256-gcm', password: `${key}:${key}` }],
    },
  },
  { protocol: 'trojan', settings: { servers: [{ ...place, password: 'x' }] }, streamSettings: tls },
  { protocol: 'trojan', settings: { address: '10.0.0.1', port: 1, password: 'x' } },
  { protocol: 'vless', settings: vless, streamSettings: tls },
  { protocol: 'vless', settings: { ...vless, id: 'alice' }, streamSettings: tls },
  {
    protocol: 'vless',
    settings: { ...vless, encryption: `mlkem768x25519plus.native.0rtt.${realityKey}` },
  },
  {
    protocol: 'vless',
    settings: { vnext: [{ address: 'up.lan', port: 1, users: [{ id, encryption: 'none' }] }] },
  },
  {
    protocol: 'vless',
    settings: { ...vless, flow: 'xtls-rprx-vision' },
    streamSettings: {
      network: 'raw',
      security: 'reality',
      realitySettings: {
        password: realityKey,
        shortId: '01ab',
        serverName: 'www.example.com',
        fingerprint: 'chrome',
      },
    },
    mux: { enabled: true, concurrency: -1, xudpConcurrency: 16, xudpProxyUDP443: 'reject' },
  },
  {
    protocol: 'vmess',
    settings: { vnext: [{ ...place, users: [{ id, alterId: 0, security: 'auto' }] }] },
  },
  {
    protocol: 'wireguard',
    settings: {
      secretKey: key,
      address: ['172.16.0.2/32', 'fd00::2'],
      peers: [
        {
          publicKey: '00'.repeat(32),
          endpoint: 'engage.example.com:2408',
          allowedIPs: ['0.0.0.0/0'],
        },
      ],
      reserved: [1, 2, 3],
      mtu: 1_280,
    },
  },
  {
    protocol: 'hysteria',
    settings: { version: 2, ...place },
    streamSettings: {
      network: 'hysteria',
      hysteriaSettings,
      ...tls,
      finalmask: {
        udp: [{ type: 'salamander', settings: { password: 'p' } }],
        quicParams: { congestion: 'bbr' },
      },
    },
  },
  {
    protocol: 'trojan',
    settings: { ...place, password: 'x' },
    streamSettings: {
      network: 'xhttp',
      xhttpSettings: {
        path: '/x',
        mode: 'stream-one',
        extra: { xmux: { maxConcurrency: '16-32' } },
      },
      ...tls,
      sockopt: { dialerProxy: 'hop', tcpFastOpen: true },
    },
  },
];

t.test('outbounds that Xray takes', async (t) => {
  for (const given of accepted) t.same(faultsOf(given), [], JSON.stringify(given));
});

const refused: [given: Given, ...faults: (string | RegExp)[]][] = [
  [
    { protocol: 'freedom', settings: { domainStrategy: 'nope' } },
    /^settings\.domainStrategy: Must be one of AsIs/,
  ],
  [
    { protocol: 'freedom', settings: { domainStrategie: 'AsIs' } },
    'settings: Unrecognized key: "domainStrategie"',
  ],
  [
    { protocol: 'freedom', settings: { redirect: 'a:b' } },
    'settings.redirect: Must be host:port, or :port',
  ],
  [
    { protocol: 'freedom', settings: { finalRules: [{ action: 'block', ip: ['10.0.0.0/33'] }] } },
    /finalRules\[0\]\.ip\[0\]: Must have a prefix length/,
  ],
  [{ protocol: 'freedom', sendThrough: 'eth0' }, /^sendThrough: /],
  [{ protocol: 'freedom', targetStrategy: 'x' }, /^targetStrategy: /],
  [{ protocol: 'freedom', mux: { concurrency: 8, on: true } }, 'mux: Unrecognized key: "on"'],
  [
    {
      protocol: 'freedom',
      proxySettings: { tag: 'b' },
      streamSettings: { sockopt: { dialerProxy: 'b' } },
    },
    'proxySettings: Does not go with sockopt.dialerProxy',
  ],
  [{ protocol: 'freedom', raw: { tag: 'b' } }, /^raw: Must not have tag/],
  [{ protocol: 'freedom', raw: { Protocol: 'b' } }, /^raw: Must not have tag/],
  [{ protocol: 'freedom', raw: { a: 'b'.repeat(65_536) } }, /^raw: Must be 64 KiB at most/],
  [
    { protocol: 'blackhole', settings: { response: { type: 'tcp' } } },
    /^settings\.response\.type: /,
  ],
  [
    { protocol: 'dns', settings: { rules: [], nonIPQuery: 'drop' } },
    'settings.rules: Does not go with nonIPQuery',
  ],
  [{ protocol: 'loopback' }, /^settings\.inboundTag: /],
  [
    { protocol: 'socks', settings: { address: 'a b', port: 1 } },
    /^settings\.address: Must be a host name/,
  ],
  [{ protocol: 'socks', settings: { address: 'fe80::1%eth0', port: 1 } }, /without a zone$/],
  [
    { protocol: 'http', settings: { servers: [place, place] } },
    /^settings\.servers: Must have exactly one server/,
  ],
  [
    { protocol: 'shadowsocks', settings: { ...place, method: 'rc4', password: 'x' } },
    /^settings\.method: Must be one of/,
  ],
  [
    {
      protocol: 'shadowsocks',
      settings: { ...place, method: '2022-blake3-aes-128-gcm', password: key },
    },
    /^settings\.password: Must be 16 bytes in base64/,
  ],
  [
    {
      protocol: 'trojan',
      settings: { servers: [{ address: '203.0.113.9', port: 443, password: 'x' }] },
    },
    /^settings\.servers\[0\]\.address: Is public/,
  ],
  [
    {
      protocol: 'vless',
      settings: {
        vnext: [{ address: '203.0.113.9', port: 443, users: [{ id, encryption: 'none' }] }],
      },
    },
    /^settings\.vnext\[0\]\.address: Is public, so vless needs streamSettings with security tls or reality/,
  ],
  [
    { protocol: 'vless', settings: { ...vless, id: 'x'.repeat(31) }, streamSettings: tls },
    /^settings\.id: Must be a UUID/,
  ],
  [
    { protocol: 'vless', settings: { ...place, id }, streamSettings: tls },
    /^settings\.encryption: /,
  ],
  [
    { protocol: 'vless', settings: { ...vless, flow: 'vision' }, streamSettings: tls },
    /^settings\.flow: /,
  ],
  [
    {
      protocol: 'vless',
      settings: { ...vless, flow: 'xtls-rprx-vision' },
      streamSettings: { network: 'ws', ...tls },
    },
    'settings.flow: Only goes with network raw and security tls or reality',
  ],
  [
    { protocol: 'vless', settings: vless, streamSettings: { security: 'reality' } },
    'streamSettings.realitySettings: Is needed with security reality',
  ],
  [
    {
      protocol: 'vless',
      settings: vless,
      streamSettings: { security: 'reality', realitySettings: { password: 'x', shortId: '1' } },
    },
    /^streamSettings\.realitySettings\.password: Must be 32 bytes/,
    /^streamSettings\.realitySettings\.shortId: Must be up to 16 hex digits/,
  ],
  [
    { protocol: 'vless', settings: vless, streamSettings: { ...tls, wsSettings: {} } },
    'streamSettings.wsSettings: Only goes with network ws',
  ],
  [
    {
      protocol: 'trojan',
      settings: { ...place, password: 'x' },
      streamSettings: { security: 'tls', tlsSettings: { allowInsecure: true } },
    },
    'streamSettings.tlsSettings.allowInsecure: Must be false: Xray no longer has it; use pinnedPeerCertSha256',
  ],
  [
    {
      protocol: 'vmess',
      settings: { ...place, id },
      streamSettings: { network: 'grpc', security: 'tls', tlsSettings: { alpn: ['http/1.1'] } },
    },
    'streamSettings.tlsSettings: Must have h2 in alpn with network grpc',
  ],
  [
    {
      protocol: 'vmess',
      settings: { ...place, id },
      streamSettings: { network: 'ws', security: 'tls', tlsSettings: { alpn: ['h2'] } },
    },
    'streamSettings.tlsSettings: Must have http/1.1 in alpn with network ws',
  ],
  [{ protocol: 'vmess', settings: { ...place, id, alterId: 64 } }, /^settings\.alterId: /],
  [
    { protocol: 'wireguard', settings: { secretKey: '', peers: [] } },
    /^settings\.secretKey: Must be 32 bytes/,
    /^settings\.peers: /,
  ],
  [
    { protocol: 'hysteria', settings: { version: 2, ...place } },
    'streamSettings.network: Must be hysteria, or Xray does not start',
  ],
  [
    {
      protocol: 'hysteria',
      settings: { version: 2, ...place },
      streamSettings: { network: 'hysteria', hysteriaSettings },
    },
    'streamSettings.security: Must be tls with network hysteria',
  ],
  [{ protocol: 'nope' as 'freedom' }, /^protocol: /],
];

t.test('outbounds that Xray refuses, or that could not work', async (t) => {
  for (const [given, ...faults] of refused) t.match(faultsOf(given), faults, JSON.stringify(given));
});

t.test('the error names every place', async (t) => {
  const given = { tag: 'a', protocol: 'socks', settings: { address: '', port: 0 } } as const;
  t.throws(() => validateOutbound(given), {
    code: 'INVALID_ARGUMENT',
    message: /^Invalid outbound a: settings\.address: .*; settings\.port: /,
    issues: [{ path: 'settings.address' }, { path: 'settings.port' }],
  });
});
