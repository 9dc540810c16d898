import { createHash } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import type { VpnProtocol } from '../../src/contract/enums.ts';
import type { XrayStreamSettings } from '../../src/contract/node-config.ts';
import { CoreError } from '../../src/errors.ts';
import { validateProtocolSettings } from '../../src/protocols/settings.ts';
import {
  generateShadowsocksKey,
  isShadowsocksKey,
  shadowsocksMethods,
  shadowsocksUserKey,
} from '../../src/protocols/shadowsocks-key.ts';
import { generateX25519, x25519PublicKey } from '../../src/protocols/x25519.ts';
import { linkRecordBytes } from '../../src/render/link-records.ts';
import { mtProtoSecret } from '../../src/render/mtproto.ts';
import type { NodeRows } from '../../src/render/node-rows.ts';
import { renderNodeConfig } from '../../src/render/render.ts';
import { encodeLinkRecords, type LinkRow } from '../support/link-records.ts';

const uuid1 = '11111111-1111-4111-8111-111111111111';
const uuid2 = '22222222-2222-4222-8222-222222222222';
const uuid3 = '33333333-3333-4333-8333-333333333333';

type GivenRows = Omit<NodeRows, 'links'> & { links: LinkRow[] };

function rows({ links = [], ...given }: Partial<GivenRows> = {}): NodeRows {
  return {
    node: { id: 7, host: 'node.example', ip: '192.0.2.7', revision: 3 },
    protocols: [],
    outbounds: [],
    rules: [],
    links: encodeLinkRecords(links),
    ...given,
  };
}

function link(uuid: string, nodeProtocolId: number, userId: number) {
  return { uuid, nodeProtocolId, userId, subscriptionId: userId + 100 };
}

t.test('a node of three protocols', async (t) => {
  const config = renderNodeConfig(
    rows({
      protocols: [
        { id: 1, protocol: 'VLESS', port: 443, settings: {} },
        {
          id: 2,
          protocol: 'TROJAN',
          port: 8443,
          settings: {
            network: 'ws',
            ws: { path: '/t', host: 'a.example' },
            security: 'tls',
            tls: { certificateFile: '/c.pem', keyFile: '/k.pem', serverName: 'a.example' },
            sniffing: false,
          },
        },
        { id: 3, protocol: 'MTPROTO', port: 9443, settings: {} },
      ],
      links: [link(uuid2, 1, 5), link(uuid1, 1, 4), link(uuid3, 3, 4)],
      outbounds: [
        { tag: 'warp', protocol: 'socks', settings: { b: 1, a: [{ d: 1, c: 2 }] }, position: 1 },
        { tag: 'direct', protocol: 'freedom', settings: {}, position: 0 },
      ],
      rules: [
        { position: 2, rule: { outboundTag: 'direct', network: 'tcp' } },
        { position: 1, rule: { outboundTag: 'warp', domain: ['domain:example.com'] } },
      ],
    }),
  );
  t.same(config, {
    revision: 3,
    clientMap: {
      [uuid1]: { userId: 4, subscriptionId: 104 },
      [uuid2]: { userId: 5, subscriptionId: 105 },
      [uuid3]: { userId: 4, subscriptionId: 104 },
    },
    services: {
      xray: {
        inbounds: [
          {
            tag: 'in-1',
            listen: '0.0.0.0',
            port: 443,
            sniffing: { enabled: true, destOverride: ['http', 'tls', 'quic'], routeOnly: true },
            protocol: 'vless',
            settings: {
              clients: [
                { id: uuid1, email: uuid1 },
                { id: uuid2, email: uuid2 },
              ],
              decryption: 'none',
            },
            streamSettings: { network: 'raw', security: 'none' },
          },
          {
            tag: 'in-2',
            listen: '0.0.0.0',
            port: 8443,
            protocol: 'trojan',
            settings: { clients: [] },
            streamSettings: {
              network: 'ws',
              security: 'tls',
              wsSettings: { path: '/t', host: 'a.example' },
              tlsSettings: {
                certificates: [{ certificateFile: '/c.pem', keyFile: '/k.pem' }],
                serverName: 'a.example',
              },
            },
          },
        ],
        outbounds: [
          { tag: 'direct', protocol: 'freedom', settings: {} },
          { tag: 'warp', protocol: 'socks', settings: { a: [{ c: 2, d: 1 }], b: 1 } },
        ],
        routing: {
          domainStrategy: 'AsIs',
          rules: [
            { domain: ['domain:example.com'], outboundTag: 'warp' },
            { network: 'tcp', outboundTag: 'direct' },
          ],
        },
        policy: {
          levels: {
            '0': { statsUserUplink: true, statsUserDownlink: true, statsUserOnline: true },
          },
          system: {
            statsInboundUplink: true,
            statsInboundDownlink: true,
            statsOutboundUplink: true,
            statsOutboundDownlink: true,
          },
        },
        stats: {},
        api: {
          tag: 'api',
          listen: '127.0.0.1:10085',
          services: ['HandlerService', 'RoutingService', 'StatsService'],
        },
      },
      mtproto: {
        inbounds: [
          {
            tag: 'in-3',
            listen: '0.0.0.0',
            port: 9443,
            publicHost: 'node.example',
            publicPort: 9443,
            tlsDomain: 'www.cloudflare.com',
            modes: { classic: false, secure: false, tls: true },
            users: [{ name: uuid3, secret: '33333333333343338333333333333333' }],
          },
        ],
      },
    },
  });
  t.equal(Object.keys(config.clientMap).join(), [uuid1, uuid2, uuid3].join());
});

t.test('a service that the node does not run is absent', async (t) => {
  t.same(renderNodeConfig(rows()), { revision: 3, clientMap: {}, services: {} });
  const withoutUsers = rows({
    protocols: [{ id: 3, protocol: 'MTPROTO', port: 443, settings: {} }],
    outbounds: [{ tag: 'direct', protocol: 'freedom', settings: {}, position: 0 }],
  });
  t.same(renderNodeConfig(withoutUsers).services, {});
  const xrayOnly = renderNodeConfig(
    rows({
      protocols: [
        { id: 1, protocol: 'VLESS', port: 443, settings: {} },
        { id: 3, protocol: 'MTPROTO', port: 444, settings: {} },
      ],
    }),
  );
  t.same(Object.keys(xrayOnly.services), ['xray']);
  t.same(xrayOnly.services.xray?.outbounds, [{ tag: 'direct', protocol: 'freedom', settings: {} }]);
});

t.test('a node without a host is reached by its ip', async (t) => {
  const config = renderNodeConfig(
    rows({
      node: { id: 7, host: '', ip: '192.0.2.7', revision: 1 },
      protocols: [{ id: 3, protocol: 'MTPROTO', port: 443, settings: { publicPort: 8443 } }],
      links: [link(uuid1, 3, 1)],
    }),
  );
  const inbound = config.services.mtproto?.inbounds[0];
  t.equal(inbound?.publicHost, '192.0.2.7');
  t.equal(inbound?.publicPort, 8443);
});

t.test('REALITY with vision, and the other transports', async (t) => {
  const reality = validateProtocolSettings('VLESS', {
    security: 'reality',
    flow: 'xtls-rprx-vision',
    reality: { target: 'www.example.com:443' },
  });
  const block = reality['reality'] as Record<string, string & string[]>;
  const config = renderNodeConfig(
    rows({
      protocols: [
        { id: 1, protocol: 'VLESS', port: 443, settings: reality },
        { id: 2, protocol: 'VLESS', port: 444, settings: { network: 'grpc' } },
        { id: 3, protocol: 'VLESS', port: 445, settings: { network: 'xhttp', xhttp: {} } },
      ],
      links: [link(uuid1, 1, 1)],
    }),
  );
  const inbounds = config.services.xray?.inbounds ?? [];
  const [first, second, third] = inbounds.map((inbound) => {
    return 'streamSettings' in inbound ? (inbound.streamSettings as XrayStreamSettings) : undefined;
  });
  t.same(first, {
    network: 'raw',
    security: 'reality',
    realitySettings: {
      target: 'www.example.com:443',
      serverNames: ['www.example.com'],
      privateKey: block['privateKey'],
      shortIds: block['shortIds'],
    },
  });
  t.same(inbounds[0]?.settings.clients, [{ id: uuid1, email: uuid1, flow: 'xtls-rprx-vision' }]);
  t.notMatch(JSON.stringify(config), String(block['publicKey']), 'the node needs no public key');
  t.same(second?.grpcSettings, { serviceName: 'grpc' });
  t.same(third?.xhttpSettings, { path: '/', mode: 'auto' });
});

t.test('stored settings that cannot be rendered fail as a whole', async (t) => {
  const bad: [VpnProtocol, object][] = [
    ['VLESS', { network: 'quic' }],
    ['VLESS', { security: 'reality', reality: { target: 'a.example:443' } }],
    ['SHADOWSOCKS', {}],
    ['HYSTERIA2', {}],
    ['MTPROTO', { tlsDomain: '/' }],
  ];
  for (const [protocol, settings] of bad) {
    const given = rows({ protocols: [{ id: 9, protocol, port: 443, settings }] });
    t.throws(() => renderNodeConfig(given), {
      code: 'INTERNAL',
      message: 'The configuration of node 7 cannot be rendered',
      cause: { code: 'INVALID_ARGUMENT' },
    });
  }
});

t.test('an inbound that would admit everybody without a user is left out', async (t) => {
  const tls = { certificateFile: '/c.pem', keyFile: '/k.pem' };
  const protocols: NodeRows['protocols'] = [
    {
      id: 1,
      protocol: 'SHADOWSOCKS',
      port: 443,
      settings: validateProtocolSettings('SHADOWSOCKS', {}),
    },
    { id: 2, protocol: 'HYSTERIA2', port: 444, settings: { tls } },
  ];
  t.same(renderNodeConfig(rows({ protocols })).services, {});
  const links = [link(uuid1, 1, 1), link(uuid2, 2, 1)];
  const { xray } = renderNodeConfig(rows({ protocols, links })).services;
  t.same(
    xray?.inbounds.map((inbound) => inbound.protocol),
    ['shadowsocks', 'hysteria'],
  );
});

t.test('the api gets a port that no protocol has', async (t) => {
  const at = (...ports: number[]) => {
    const protocols = ports.map((port, index) => {
      return { id: index + 1, protocol: 'VLESS' as const, port, settings: {} };
    });
    return renderNodeConfig(rows({ protocols })).services.xray?.api.listen;
  };
  t.equal(at(443), '127.0.0.1:10085');
  t.equal(at(10_085, 10_086, 443), '127.0.0.1:10087');
});

t.test('links that are not whole are never written', async (t) => {
  const protocols: NodeRows['protocols'] = [{ id: 1, protocol: 'VLESS', port: 443, settings: {} }];
  const links = [...encodeLinkRecords([link(uuid1, 1, 1)]), Buffer.alloc(linkRecordBytes - 1)];
  t.throws(() => renderNodeConfig({ ...rows({ protocols }), links }), { code: 'INTERNAL' });
});

t.test('UUIDs that begin alike are in their order too', async (t) => {
  const uuids = Array.from({ length: 40 }, (_, index) => {
    const end = String((index * 17) % 40).padStart(12, '0');
    return `${index % 3 === 0 ? '11111111' : 'ffffffff'}-1111-4111-8111-${end}`;
  });
  const config = renderNodeConfig(
    rows({
      protocols: [{ id: 1, protocol: 'VLESS', port: 443, settings: {} }],
      links: uuids.map((uuid) => link(uuid, 1, 1)),
    }),
  );
  t.strictSame(Object.keys(config.clientMap), [...uuids].sort());
});

t.test('ids of any size, and each revision, are written in whole', async (t) => {
  const ids = [1, 9, 10, 999_999_999, 1_000_000_000, 2 ** 32, 2 ** 53 - 1];
  const uuids = ids.map((_, index) => `${index}1111111-1111-4111-8111-1111111111ff`);
  const given = rows({
    protocols: [{ id: 2 ** 40, protocol: 'VMESS', port: 443, settings: {} }],
    links: ids.map((id, index) => ({
      uuid: uuids[index] as string,
      nodeProtocolId: 2 ** 40,
      userId: id,
      subscriptionId: ids[ids.length - 1 - index] as number,
    })),
  });
  for (const revision of [1, 2_147_483_647]) {
    const config = renderNodeConfig({ ...given, node: { ...given.node, revision } });
    t.equal(config.revision, revision);
    t.same(
      uuids.map((uuid) => config.clientMap[uuid]),
      ids.map((id, index) => ({ userId: id, subscriptionId: ids[ids.length - 1 - index] })),
    );
  }
});

t.test('text in settings and rules comes out as it went in', async (t) => {
  const content = '"clients":[] "users":[] \\" Ω';
  const { xray } = renderNodeConfig(
    rows({
      protocols: [
        {
          id: 1,
          protocol: 'HYSTERIA2',
          port: 443,
          settings: {
            tls: { certificateFile: '/"clients":[].pem', keyFile: '/k.pem' },
            masquerade: { type: 'string', content },
          },
        },
      ],
      links: [link(uuid1, 1, 1), link(uuid2, 1, 2)],
      rules: [{ position: 1, rule: { domain: [content] } }],
    }),
  ).services;
  const [inbound] = xray?.inbounds ?? [];
  if (inbound?.protocol !== 'hysteria') throw new Error('the inbound is Hysteria2');
  t.equal(inbound.streamSettings.hysteriaSettings.masquerade?.['content'], content);
  t.equal(inbound.streamSettings.tlsSettings.certificates[0]?.certificateFile, '/"clients":[].pem');
  t.same(inbound.settings.clients, [
    { auth: uuid1, email: uuid1 },
    { auth: uuid2, email: uuid2 },
  ]);
  t.same(xray?.routing.rules, [{ domain: [content] }]);
});

t.test('MTProto users carry the limits of the settings and their own expiry', async (t) => {
  const expiresAt = '2030-01-31T00:00:00.000Z';
  const { mtproto } = renderNodeConfig(
    rows({
      protocols: [
        { id: 3, protocol: 'MTPROTO', port: 443, settings: { maxTcpConns: 50, maxUniqueIps: 3 } },
      ],
      links: [{ ...link(uuid1, 3, 1), expiresAt }, link(uuid2, 3, 2)],
    }),
  ).services;
  const limits = { maxTcpConns: 50, maxUniqueIps: 3 };
  t.same(mtproto?.inbounds[0]?.users, [
    { name: uuid1, secret: mtProtoSecret(uuid1), ...limits, expiresAt },
    { name: uuid2, secret: mtProtoSecret(uuid2), ...limits },
  ]);
});

t.test('property: a node of any number of users is what its links say', async (t) => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.uuid(), { maxLength: 300 }), (uuids) => {
      const sorted = [...uuids].sort();
      const config = renderNodeConfig(
        rows({
          protocols: [{ id: 1, protocol: 'TROJAN', port: 443, settings: {} }],
          links: uuids.map((uuid, index) => link(uuid, 1, 10 ** (index % 15))),
        }),
      );
      const [inbound] = config.services.xray?.inbounds ?? [];
      const expected = sorted.map((uuid) => ({ password: uuid, email: uuid }));
      t.strictSame(inbound?.settings.clients, expected);
      t.equal(Object.keys(config.clientMap).join(), sorted.join());
    }),
    { numRuns: 20 },
  );
});

t.test('a Shadowsocks key goes with the link and the server, and has its length', async (t) => {
  for (const method of shadowsocksMethods) {
    const serverKey = generateShadowsocksKey(method);
    const key = shadowsocksUserKey(method, serverKey, uuid1);
    t.ok(isShadowsocksKey(method, serverKey));
    t.ok(isShadowsocksKey(method, key), `${method} ${key}`);
    t.equal(shadowsocksUserKey(method, serverKey, uuid1), key);
    t.not(shadowsocksUserKey(method, serverKey, uuid2), key, 'a rotated link has another key');
    t.not(shadowsocksUserKey(method, generateShadowsocksKey(method), uuid1), key);
  }
  fc.assert(
    fc.property(fc.uuid(), (uuid) => {
      const [method] = shadowsocksMethods;
      const text = `core shadowsocks 2022:${method}:AAECAwQFBgcICQoLDA0ODw==:${uuid}`;
      const digest = createHash('sha256').update(text).digest().subarray(0, 16);
      return (
        shadowsocksUserKey(method, 'AAECAwQFBgcICQoLDA0ODw==', uuid) === digest.toString('base64')
      );
    }),
    { numRuns: 200 },
  );
});

t.test('property: the order of the rows changes no byte', async (t) => {
  const json = fc.dictionary(fc.string({ maxLength: 4 }), fc.jsonValue({ maxDepth: 2 }), {
    maxKeys: 4,
  });
  const settings: Record<'VLESS' | 'TROJAN' | 'MTPROTO', unknown> = {
    VLESS: { network: 'xhttp', xhttp: { path: '/x' } },
    TROJAN: {},
    MTPROTO: {},
  };
  const arbitraryRows = fc.record({
    protocols: fc.array(fc.constantFrom('VLESS', 'TROJAN', 'MTPROTO'), { maxLength: 5 }),
    outbounds: fc.uniqueArray(
      fc.record({
        tag: fc.string({ maxLength: 3 }),
        protocol: fc.constant('freedom'),
        settings: json,
        position: fc.nat(2),
      }),
      { selector: (row) => row.tag, maxLength: 5 },
    ),
    rules: fc.array(json, { maxLength: 5 }),
    links: fc.uniqueArray(
      fc.record({
        uuid: fc.uuid(),
        nodeProtocolId: fc.integer({ min: 1, max: 5 }),
        userId: fc.integer({ min: 1 }),
        subscriptionId: fc.integer({ min: 1 }),
      }),
      { selector: (row) => row.uuid, maxLength: 20 },
    ),
    seed: fc.infiniteStream(fc.nat(1_000)),
  });
  fc.assert(
    fc.property(arbitraryRows, (given) => {
      const ordered = rows({
        outbounds: given.outbounds,
        links: given.links,
        protocols: given.protocols.map((protocol, index) => ({
          id: index + 1,
          protocol,
          port: 1_000 + index,
          settings: settings[protocol],
        })),
        rules: given.rules.map((rule, position) => ({ position, rule })),
      });
      const shuffle = <T>(list: readonly T[]): T[] =>
        list
          .map((value) => ({ value, key: given.seed.next().value as number }))
          .sort((left, right) => left.key - right.key)
          .map(({ value }) => value);
      const shuffled = rows({
        protocols: shuffle(ordered.protocols),
        outbounds: shuffle(ordered.outbounds).map((row) => ({
          ...row,
          settings: reversed(row.settings),
        })),
        rules: shuffle(ordered.rules).map((row) => ({ ...row, rule: reversed(row.rule) })),
        links: shuffle(given.links),
      });
      const config = renderNodeConfig(ordered);
      if (JSON.stringify(config) !== JSON.stringify(renderNodeConfig(shuffled))) return false;
      const inbounds = config.services.xray?.inbounds ?? [];
      return clientsAgree(ordered, given.links, inbounds, config.clientMap);
    }),
    { numRuns: 200 },
  );
  t.pass();
});

/** The same object with its keys inserted the other way round. */
function reversed(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).reverse());
}

/** Every Xray client is in the client map, and nobody on a protocol of the node is left out. */
function clientsAgree(
  given: NodeRows,
  links: readonly LinkRow[],
  inbounds: readonly { settings: { clients: readonly { email: string }[] } }[],
  clientMap: Record<string, unknown>,
): boolean {
  const served = new Set(given.protocols.map((row) => row.id));
  const expected = links.filter((row) => served.has(row.nodeProtocolId));
  const clients = inbounds.flatMap((inbound) => inbound.settings.clients);
  return (
    Object.keys(clientMap).length === expected.length &&
    clients.every((client) => Object.hasOwn(clientMap, client.email))
  );
}

t.test('settings: {} gives usable defaults', async (t) => {
  t.same(validateProtocolSettings('VLESS', {}), {
    network: 'raw',
    security: 'none',
    sniffing: true,
  });
  t.same(validateProtocolSettings('TROJAN', {}), {
    network: 'raw',
    security: 'none',
    sniffing: true,
  });
  t.same(validateProtocolSettings('MTPROTO', {}), {
    tlsDomain: 'www.cloudflare.com',
    modes: { classic: false, secure: false, tls: true },
  });
});

t.test('settings: validated ones come back unchanged', async (t) => {
  const given: [VpnProtocol, unknown][] = [
    ['VLESS', { security: 'reality', reality: { target: 'a.example:443' } }],
    ['VLESS', { network: 'ws' }],
    ['TROJAN', { network: 'grpc', security: 'tls', tls: { certificateFile: '/c', keyFile: '/k' } }],
    ['VMESS', { network: 'grpc', listen: '::' }],
    ['SHADOWSOCKS', {}],
    ['SHADOWSOCKS', { method: '2022-blake3-aes-256-gcm', network: 'tcp' }],
    [
      'HYSTERIA2',
      { tls: { certificateFile: '/c', keyFile: '/k' }, masquerade: { type: 'file', dir: '/www' } },
    ],
    ['MTPROTO', { publicHost: '2001:db8::1', adTag: '0123456789abcdef0123456789abcdef' }],
  ];
  for (const [protocol, settings] of given) {
    const stored = validateProtocolSettings(protocol, settings);
    t.same(validateProtocolSettings(protocol, JSON.parse(JSON.stringify(stored))), stored);
  }
});

t.test('settings: REALITY keys belong together and are new each time', async (t) => {
  const make = () =>
    validateProtocolSettings('VLESS', {
      security: 'reality',
      reality: { target: 'a.example:443' },
    })['reality'] as { privateKey: string; publicKey: string; shortIds: string[] };
  const first = make();
  t.equal(x25519PublicKey(first.privateKey), first.publicKey);
  t.match(first.shortIds[0], /^[0-9a-f]{16}$/);
  t.not(make().privateKey, first.privateKey);
});

t.test('settings: faults name their place', async (t) => {
  const pair = generateX25519();
  const reality = { target: 'a.example:443' };
  const faults: [VpnProtocol, unknown, RegExp][] = [
    ['VLESS', { colour: 1 }, /settings: Unrecognized key: "colour"/],
    ['VLESS', [], /settings: /],
    ['VLESS', { network: 'quic' }, /network: /],
    ['VLESS', { security: 'tls' }, /tls: Is needed/],
    ['VLESS', { security: 'reality' }, /reality: Is needed/],
    ['VLESS', { reality }, /reality: Only goes with security reality/],
    ['VLESS', { ws: {} }, /ws: Only goes with network ws/],
    ['VLESS', { network: 'ws', security: 'reality', reality }, /network: Must be raw/],
    ['VLESS', { flow: 'xtls-rprx-vision' }, /flow: Only goes with/],
    ['VLESS', { network: 'ws', ws: { path: 'x' } }, /ws\.path: Must start with/],
    ['VLESS', { security: 'reality', reality: { target: 'a.example' } }, /reality\.target: /],
    ['VLESS', { security: 'reality', reality: { target: 'a.example:0' } }, /reality\.target: /],
    [
      'VLESS',
      { security: 'reality', reality: { target: '192.0.2.1:443' } },
      /reality\.serverNames: Is needed/,
    ],
    [
      'VLESS',
      { security: 'reality', reality: { ...reality, shortIds: ['ab', 'xyz'] } },
      /reality\.shortIds\[1\]: /,
    ],
    [
      'VLESS',
      { security: 'reality', reality: { ...reality, privateKey: 'short' } },
      /reality\.privateKey: /,
    ],
    [
      'VLESS',
      {
        security: 'reality',
        reality: { ...reality, ...pair, publicKey: generateX25519().publicKey },
      },
      /reality\.publicKey: Does not belong/,
    ],
    [
      'VLESS',
      { security: 'reality', reality: { ...reality, publicKey: pair.publicKey } },
      /reality\.privateKey: Is needed/,
    ],
    ['TROJAN', { security: 'reality', reality }, /security: /],
    ['TROJAN', { flow: 'xtls-rprx-vision' }, /Unrecognized key: "flow"/],
    ['MTPROTO', { modes: { tls: false } }, /modes: At least one/],
    ['MTPROTO', { adTag: 'x' }, /adTag: Must be 32 hex digits/],
    ['MTPROTO', { publicPort: 0 }, /publicPort: /],
    ['MTPROTO', { maxUniqueIps: 0 }, /maxUniqueIps: /],
    ['VLESS', { listen: 'localhost' }, /listen: Must be an IP address/],
    ['VLESS', { publicHost: 'a b' }, /publicHost: /],
    ['VMESS', { security: 'reality' }, /security: /],
    ['VMESS', { network: 'ws', security: 'tls' }, /tls: Is needed/],
    [
      'TROJAN',
      { security: 'tls', tls: { certificateFile: 'c.pem', keyFile: '/k' } },
      /tls\.certificateFile: Must be an absolute path/,
    ],
    ['SHADOWSOCKS', { method: 'aes-128-gcm' }, /method: /],
    ['SHADOWSOCKS', { serverKey: 'AAECAwQFBgcICQoLDA0OD' }, /serverKey: Must be 16 bytes/],
    [
      'SHADOWSOCKS',
      { method: '2022-blake3-aes-256-gcm', serverKey: 'AAECAwQFBgcICQoLDA0ODw==' },
      /serverKey: Must be 32 bytes/,
    ],
    ['HYSTERIA2', {}, /tls: /],
    [
      'HYSTERIA2',
      { tls: { certificateFile: '/c', keyFile: '/k' }, masquerade: { type: 'proxy', url: 'x' } },
      /masquerade\.url: /,
    ],
    [
      'VLESS',
      { security: 'reality', reality: { ...reality, minClientVer: '26' } },
      /reality\.minClientVer: /,
    ],
  ];
  for (const [protocol, settings, message] of faults) {
    try {
      validateProtocolSettings(protocol, settings);
      t.fail(`${protocol} ${JSON.stringify(settings)} was taken`);
    } catch (thrown) {
      t.ok(thrown instanceof CoreError);
      t.match(thrown, { code: 'INVALID_ARGUMENT', message }, JSON.stringify(settings));
      t.notMatch(String(thrown), pair.privateKey, 'no secret in the message');
    }
  }
});

t.test('an MTProto secret is 32 hex digits, one for each UUID', async (t) => {
  t.equal(mtProtoSecret(uuid1), '11111111111141118111111111111111');
  t.not(mtProtoSecret(uuid1), mtProtoSecret(uuid2));
});
