import fc from 'fast-check';
import t from 'tap';
import type { VpnProtocol } from '../../src/contract/enums.ts';
import type { XrayStreamSettings } from '../../src/contract/node-config.ts';
import { validateProtocolSettings } from '../../src/protocols/settings.ts';
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

const threeProtocols = rows({
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
});

const vlessAndTrojan = [
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
];

const countEverything = {
  levels: {
    '0': { statsUserUplink: true, statsUserDownlink: true, statsUserOnline: true },
  },
  system: {
    statsInboundUplink: true,
    statsInboundDownlink: true,
    statsOutboundUplink: true,
    statsOutboundDownlink: true,
  },
};

t.test('a node of three protocols is rendered whole', async (t) => {
  const config = renderNodeConfig(threeProtocols);
  t.same(config, {
    revision: 3,
    clientMap: {
      [uuid1]: { userId: 4, subscriptionId: 104 },
      [uuid2]: { userId: 5, subscriptionId: 105 },
      [uuid3]: { userId: 4, subscriptionId: 104 },
    },
    services: {
      xray: {
        inbounds: vlessAndTrojan,
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
        policy: countEverything,
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

t.test('clients reach a node without a host at its ip', async (t) => {
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

t.test('VLESS has REALITY with vision, gRPC and XHTTP', async (t) => {
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

t.test('one protocol that cannot be rendered fails the configuration', async (t) => {
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

t.test('without users, an inbound that would then admit others is left out', async (t) => {
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

t.test('an incomplete link record fails the render', async (t) => {
  const protocols: NodeRows['protocols'] = [{ id: 1, protocol: 'VLESS', port: 443, settings: {} }];
  const links = [...encodeLinkRecords([link(uuid1, 1, 1)]), Buffer.alloc(linkRecordBytes - 1)];
  t.throws(() => renderNodeConfig({ ...rows({ protocols }), links }), { code: 'INTERNAL' });
});

t.test('UUIDs with the same beginning are sorted, too', async (t) => {
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

t.test('the smallest and largest ids and revisions are written in full', async (t) => {
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

t.test('text in settings and rules stays as it is', async (t) => {
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

t.test('property: any number of links gives their clients in order', async (t) => {
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

/** The same object with its keys in reverse order. */
function reversed(object: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).reverse());
}

/** Whether every Xray client is in the client map, and so is every link of the node's protocols. */
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

t.test('an MTProto secret is the 32 hexadecimal digits of its UUID', async (t) => {
  t.equal(mtProtoSecret(uuid1), '11111111111141118111111111111111');
  t.not(mtProtoSecret(uuid1), mtProtoSecret(uuid2));
});
