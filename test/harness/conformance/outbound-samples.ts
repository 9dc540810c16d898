import fc from 'fast-check';
import type { Outbound } from '../../../src/protocols/outbound/outbound.ts';

// Random outbounds for a comparison of Core's check with Xray's. Most values are usual ones; now and then a field
// has one that an operator might get wrong.

type Json = Record<string, unknown>;
type Field = fc.Arbitrary<unknown>;

/** Mostly one of the good values, sometimes an odd one. */
const pick = (good: readonly unknown[], odd: readonly unknown[]): Field =>
  odd.length === 0
    ? fc.constantFrom(...good)
    : fc.oneof(
        { weight: 12, arbitrary: fc.constantFrom(...good) },
        { weight: 1, arbitrary: fc.constantFrom(...odd) },
      );
const some = (
  required: Record<string, Field>,
  optional: Record<string, Field> = {},
): fc.Arbitrary<Json> =>
  fc
    .tuple(
      fc.record({ ...required, ...optional }),
      fc.array(fc.boolean(), {
        minLength: Object.keys(optional).length,
        maxLength: Object.keys(optional).length,
      }),
    )
    .map(([all, kept]) => {
      const absent = new Set(Object.keys(optional).filter((_name, at) => kept[at] !== true));
      return Object.fromEntries(Object.entries(all).filter(([name]) => !absent.has(name)));
    });

const address = pick(
  ['10.0.0.9', 'upstream.example.com', '2001:db8::9', '192.168.1.1', 'up.lan', 'localhost'],
  ['', '8.8.8.8', 'fe80::1%eth0', 'a b', '203.0.113.9', '[::1]', 'up', 7],
);
const port = pick([443, 8_443, 65_535], [0, 65_536, '443', -1]);
const level = pick([0, 1], [256, -1]);
const id = pick(
  ['0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11', '0b8f5f263c1d4e2a9a476f1f0c5d7e11', 'alice'],
  ['', 'x'.repeat(31), '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e1', 'g'.repeat(36)],
);
const password = pick(['secret', 'pass word', 'пароль'], ['']);
const strategy = pick(['AsIs', 'UseIP', 'useipv4', 'ForceIPv6v4'], ['nope', 'ForceIP4', '', 3]);
const range = pick([1, '1-3', '100-200'], [0, '3-', 'x', -1, '200-100', 1.5]);
const email = pick(['someone@example.com', ''], [7]);
const user = pick(['someone'], ['']);

const key32 = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=';
const wireGuardKey = pick(
  [key32, key32.replace('=', ''), '00'.repeat(32)],
  ['', 'AAAA', '0'.repeat(63), `${key32}=`, 'x'.repeat(44)],
);
const x25519 = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8';

/** The flat form, and the one with a list of servers. */
const inForms = (
  list: string,
  server: Record<string, Field>,
  users: fc.Arbitrary<Json> | undefined,
) =>
  users === undefined
    ? fc.oneof(
        some(server),
        some({ [list]: fc.array(some(server), { minLength: 1, maxLength: 1 }) }),
        some({ [list]: fc.array(some(server), { maxLength: 2 }) }),
      )
    : fc.oneof(
        fc.tuple(some(server), users).map(([one, who]) => ({ ...one, ...who })),
        fc
          .tuple(some(server), fc.array(users, { minLength: 1, maxLength: 1 }))
          .map(([one, who]) => ({
            [list]: [{ ...one, users: who }],
          })),
        fc.tuple(some(server), fc.array(users, { maxLength: 2 })).map(([one, who]) => ({
          [list]: [{ ...one, users: who }],
        })),
      );

const encryption = pick(
  ['none', 'none', `mlkem768x25519plus.native.0rtt.${x25519}`],
  ['', 'aes', 'mlkem768x25519plus.native.2rtt.AAAA', 'mlkem768x25519plus.native.0rtt.AAAA'],
);

const settings: Record<Outbound['protocol'], fc.Arbitrary<Json>> = {
  freedom: some(
    {},
    {
      domainStrategy: strategy,
      targetStrategy: strategy,
      redirect: pick(['127.0.0.1:80', ':53', '[::1]:80'], ['x', '1:2:3', 'host:99999', '']),
      userLevel: level,
      proxyProtocol: pick([0, 1, 2], [3, -1]),
      fragment: some(
        {
          packets: pick(['tlshello', '1-3', ''], ['0', 'x', '0-1']),
          length: range,
          interval: range,
        },
        { maxSplit: range },
      ),
      noises: fc.array(
        fc.oneof(
          some(
            { type: fc.constant('rand'), packet: pick(['10-20', '5'], ['0', 'x', '']) },
            { delay: range },
          ),
          some({ type: fc.constant('hex'), packet: pick(['00ff', ''], ['0', 'zz']) }),
          some(
            { type: pick(['base64', 'str'], ['nope']), packet: pick(['AAAA'], ['%']) },
            { applyTo: pick(['ip', 'IPv4', 'ipv6'], ['ipv5']) },
          ),
        ),
        { maxLength: 2 },
      ),
      finalRules: fc.array(
        some(
          { action: pick(['allow', 'Block'], ['deny']) },
          {
            ip: fc.array(pick(['10.0.0.0/8', '::1', '!192.0.2.0/24'], ['10.0.0.0/33', 'x']), {
              minLength: 1,
              maxLength: 2,
            }),
            port: pick([53, '53,443', '1000-2000'], ['x', 65_536, '5-1', '']),
            network: pick(['tcp', 'tcp,udp', ['udp']], [7]),
          },
        ),
        { maxLength: 2 },
      ),
    },
  ),
  blackhole: some({}, { response: some({ type: pick(['none', 'http', 'HTTP'], ['x', 1]) }) }),
  dns: some(
    {},
    {
      network: pick(['tcp', 'udp'], []),
      address,
      port,
      userLevel: level,
      rules: fc.array(
        some(
          { action: pick(['direct', 'drop', 'hijack', 'return'], ['x']) },
          {
            qType: pick([1, '1,28', '65'], ['x', 65_536]),
            domain: fc.array(
              pick(['domain:example.com', 'full:a.b'], ['regexp:(', 'dotless:a.b']),
              {
                minLength: 1,
                maxLength: 2,
              },
            ),
            rCode: pick([0, 5], [65_536, -1]),
          },
        ),
        { maxLength: 2 },
      ),
      nonIPQuery: pick(['reject', 'drop', 'skip'], ['x']),
      blockTypes: fc.array(pick([1, 65], [65_536, -1]), { maxLength: 2 }),
    },
  ),
  loopback: some(
    { inboundTag: pick(['again'], [7]) },
    {
      sniffing: some(
        {},
        {
          enabled: fc.boolean(),
          destOverride: fc.array(pick(['http', 'tls', 'quic'], ['smtp']), { maxLength: 2 }),
        },
      ),
    },
  ),
  http: inForms('servers', { address, port }, some({ user, pass: password }, { level, email })),
  socks: inForms('servers', { address, port }, some({ user, pass: password }, { level, email })),
  shadowsocks: inForms(
    'servers',
    {
      address,
      port,
      method: pick(['aes-128-gcm', 'AES-256-GCM', 'chacha20-ietf-poly1305'], ['none', 'rc4', '']),
      password,
    },
    undefined,
  ),
  trojan: inForms('servers', { address, port, password }, undefined),
  vless: inForms(
    'vnext',
    { address, port },
    some(
      { id, encryption },
      { flow: pick(['', 'xtls-rprx-vision', 'xtls-rprx-vision-udp443'], ['vision']), level, email },
    ),
  ),
  vmess: inForms(
    'vnext',
    { address, port },
    some({ id }, { security: pick(['auto', 'aes-128-gcm', 'AUTO'], []), level, email }),
  ),
  wireguard: some(
    {
      secretKey: wireGuardKey,
      peers: fc.array(
        some(
          {
            publicKey: wireGuardKey,
            endpoint: pick(['engage.example.com:2408', '10.0.0.1:51820'], ['', 'x']),
          },
          {
            preSharedKey: wireGuardKey,
            keepAlive: pick([0, 25], [-1]),
            allowedIPs: fc.array(
              pick(['0.0.0.0/0', '::/0', '10.0.0.0/8'], ['10.0.0.1', 'x', '10.0.0.0/33']),
              {
                minLength: 1,
                maxLength: 2,
              },
            ),
          },
        ),
        { minLength: 1, maxLength: 1 },
      ),
    },
    {
      address: fc.array(pick(['10.0.0.2/32', 'fd00::2', '172.16.0.2'], ['x', '10.0.0.2/33']), {
        minLength: 1,
        maxLength: 2,
      }),
      mtu: pick([1_280, 1_420], ['x']),
      reserved: pick([[1, 2, 3], 'AAAA', []], [[1], 'AA', [256, 0, 0]]),
      domainStrategy: pick(['ForceIP', 'forceipv4'], ['UseIP', 'AsIs']),
      noKernelTun: fc.boolean(),
    },
  ),
  hysteria: some({ version: pick([2], [1, '2']), address, port }),
};

const tlsSettings = some(
  {},
  {
    serverName: pick(['cdn.example.com'], [7]),
    alpn: pick([['h2', 'http/1.1'], ['h2'], ['http/1.1']], [7]),
    fingerprint: pick(['chrome', 'Firefox', 'randomized', 'unsafe'], ['netscape']),
    allowInsecure: pick([false], [true]),
    pinnedPeerCertSha256: pick(['ab'.repeat(32), `${'AB:'.repeat(31)}AB`], ['ab', 'x'.repeat(64)]),
    minVersion: pick(['1.2', '1.3'], []),
    enableSessionResumption: fc.boolean(),
  },
);
const realitySettings = some(
  { password: pick([x25519], ['', 'x', `${x25519}=`]) },
  {
    serverName: pick(['www.example.com'], []),
    fingerprint: pick(['chrome', 'ios'], ['unsafe', 'hellogolang', 'netscape']),
    shortId: pick(['', '01ab', 'ABCDEF'], ['1', 'xyz', '0'.repeat(18)]),
    spiderX: pick(['/', '/a?b=c'], ['a', '/%zz']),
  },
);
const networks: Record<string, [block: string, arbitrary: fc.Arbitrary<Json>]> = {
  raw: ['rawSettings', some({}, { header: some({ type: pick(['none', 'http'], ['x']) }) })],
  tcp: ['tcpSettings', some({})],
  ws: [
    'wsSettings',
    some(
      {},
      {
        path: pick(['/a', '/', '/a?ed=2048', ''], [7]),
        host: pick(['cdn.example.com'], []),
        headers: pick([{ 'X-A': 'b' }], [{ host: 'x' }]),
      },
    ),
  ],
  grpc: [
    'grpcSettings',
    some({ serviceName: pick(['grpc', ''], [7]) }, { multiMode: fc.boolean() }),
  ],
  xhttp: [
    'xhttpSettings',
    some(
      {},
      {
        path: pick(['/x'], []),
        mode: pick(['auto', 'stream-one', 'packet-up'], ['x']),
        xPaddingBytes: range,
        headers: pick([{ 'X-A': 'b' }], [{ Host: 'x' }]),
        extra: some(
          {},
          {
            scMaxEachPostBytes: range,
            uplinkHTTPMethod: pick(['POST', 'PUT'], ['GET']),
            xmux: some({}, { maxConcurrency: range, maxConnections: range }),
          },
        ),
      },
    ),
  ],
  httpupgrade: [
    'httpupgradeSettings',
    some({}, { path: pick(['/u'], []), headers: pick([{ 'X-A': 'b' }], [{ Host: 'x' }]) }),
  ],
  kcp: ['kcpSettings', some({}, { mtu: pick([1_350], [20]), tti: pick([50], [5, 2_000]) })],
  hysteria: [
    'hysteriaSettings',
    some({ version: pick([2], [1]), auth: password }, { udpIdleTimeout: pick([60], [1, 601]) }),
  ],
};
const sockopt = some(
  {},
  {
    mark: pick([255], [-1, 'x']),
    tcpFastOpen: pick([true, 256], ['x']),
    domainStrategy: strategy,
    tcpCongestion: pick(['bbr'], []),
    interface: pick(['eth0'], []),
    addressPortStrategy: pick(['none', 'srvportonly'], ['x']),
    happyEyeballs: some({}, { tryDelayMs: pick([250], [-1]) }),
  },
);
const quicParams = some(
  {},
  {
    congestion: pick(['bbr', 'reno', 'brutal'], ['x', 'force-brutal']),
    brutalUp: pick(['100 mbps', '1g'], ['1', 'x mbps', '10 parsecs']),
    maxIdleTimeout: pick([30], [1, 500]),
    udpHop: some({}, { ports: pick(['2000-3000'], ['x']), interval: pick([30, '5-10'], [1]) }),
  },
);

const stream = fc
  .tuple(
    pick(Object.keys(networks), ['quic', 'h2', 'x']),
    pick(['none', 'tls', 'reality', undefined], ['xtls', 'x']),
    fc.record(
      Object.fromEntries(Object.entries(networks).map(([name, [, block]]) => [name, block])),
    ),
    tlsSettings,
    realitySettings,
    some({}, { sockopt, finalmask: some({}, { quicParams }) }),
    fc.boolean(),
  )
  .map(([network, security, of, tls, reality, rest, hasBlock]): Json => {
    const block = networks[String(network)];
    return {
      network,
      ...(security === undefined ? {} : { security }),
      ...(block !== undefined && (hasBlock || network === 'hysteria')
        ? { [block[0]]: of[String(network)] }
        : {}),
      ...(security === 'tls' ? { tlsSettings: tls } : {}),
      ...(security === 'reality' ? { realitySettings: reality } : {}),
      ...rest,
    };
  });
const hysteriaStream = fc
  .tuple(stream, fc.constant(networks['hysteria']?.[1]))
  .chain(([given, block]) =>
    fc
      .tuple(fc.constant(given), block ?? fc.constant({}), tlsSettings)
      .map(([one, hysteriaSettings, tls]) => ({
        network: 'hysteria',
        security: 'tls',
        tlsSettings: tls,
        hysteriaSettings,
        ...(one['finalmask'] === undefined ? {} : { finalmask: one['finalmask'] }),
      })),
  );

const options = some(
  {},
  {
    sendThrough: pick(['192.0.2.7', 'origin', 'srcip', 'fd00::/64'], ['eth0', 'x/24', '']),
    targetStrategy: strategy,
    mux: some(
      {},
      {
        enabled: fc.boolean(),
        concurrency: pick([8, -1], [100_000]),
        xudpProxyUDP443: pick(['reject', 'allow'], ['x']),
      },
    ),
  },
);

/** A random outbound. Every fifth one or so has a field that nobody knows. */
export const outboundSample: fc.Arbitrary<Outbound> = fc
  .constantFrom(...(Object.keys(settings) as Outbound['protocol'][]))
  .chain((protocol) =>
    fc.tuple(
      fc.constant(protocol),
      settings[protocol],
      protocol === 'hysteria'
        ? fc.option(hysteriaStream, { nil: undefined, freq: 12 })
        : fc.option(stream, { nil: undefined }),
      options,
    ),
  )
  .map(([protocol, given, streamSettings, rest]) => ({
    tag: 'sample',
    protocol,
    settings: given,
    ...(streamSettings === undefined ? {} : { streamSettings }),
    ...rest,
  }));
