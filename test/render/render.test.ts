import fc from 'fast-check';
import t from 'tap';
import type { VpnProtocol } from '../../src/contract/enums.ts';
import type { XrayStreamSettings } from '../../src/contract/node-config.ts';
import { credentialUuid } from '../../src/protocols/credential.ts';
import { validateProtocolSettings } from '../../src/protocols/settings.ts';
import { shadowsocksUserKey } from '../../src/protocols/shadowsocks-key.ts';
import { linkRecordBytes } from '../../src/render/link-records.ts';
import { linkUuid } from '../../src/render/link-uuid.ts';
import { mtProtoSecret } from '../../src/render/mtproto.ts';
import type { NodeRows } from '../../src/render/node-rows.ts';
import { renderNodeConfig } from '../../src/render/render.ts';
import { credentialTexts, encodeLinkRecords, type LinkRow } from '../support/link-records.ts';

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
    credentialTexts: credentialTexts(links),
    ...given,
  };
}

/** A link from before groups: its UUID is what traffic is counted by, and the credential. */
function link(uuid: string, nodeProtocolId: number, userId: number): LinkRow {
  return {
    storedUuid: uuid,
    credential: uuid,
    nodeProtocolId,
    userId,
    subscriptionId: userId + 100,
  };
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
  t.equal(Object.keys(config.clientMap).join(), [uuid1, uuid3, uuid2].join());
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

t.test('links are sorted by the ids of subscription and protocol', async (t) => {
  const subscriptionIds = [7, 2 ** 53 - 1, 1, 300, 12];
  for (const ids of [subscriptionIds, subscriptionIds.filter((id) => id < 1_000)]) {
    const given = ids.flatMap((subscriptionId) =>
      [3, 1, 2].map((nodeProtocolId) => ({
        nodeProtocolId,
        userId: 1,
        subscriptionId,
        credential: uuid1,
      })),
    );
    const protocols = [1, 2, 3].map((id) => {
      return { id, protocol: 'VLESS' as const, port: 442 + id, settings: {} };
    });
    const config = renderNodeConfig(rows({ protocols, links: given }));
    const sorted = ids.toSorted((left, right) => left - right);
    const expected = sorted.flatMap((id) => [1, 2, 3].map((protocol) => linkUuid(id, protocol)));
    t.strictSame(Object.keys(config.clientMap), expected);
  }
});

t.test('traffic is counted by the UUID, and a client app holds the credential', async (t) => {
  const texts = ['Grüße "du"', 'p\\w', uuid1.toUpperCase().replaceAll('1', 'A'), uuid2];
  const key = Buffer.alloc(16, 7).toString('base64');
  const protocols = (
    ['VLESS', 'VMESS', 'TROJAN', 'HYSTERIA2', 'SHADOWSOCKS', 'MTPROTO'] as const
  ).map((protocol, index) => ({
    id: index + 1,
    protocol,
    port: 443 + index,
    settings: validateProtocolSettings(
      protocol,
      protocol === 'HYSTERIA2' ? { tls: { certificateFile: '/c', keyFile: '/k' } } : {},
    ),
  }));
  const given = [...texts, key].flatMap((credential, index) =>
    protocols.map(({ id }) => ({
      nodeProtocolId: id,
      userId: 1,
      subscriptionId: index + 1,
      credential,
    })),
  );
  const { services } = renderNodeConfig(rows({ protocols, links: given }));
  const uuids = [...texts, key].map(credentialUuid);
  const clients = (at: number): unknown[] => [
    ...(services.xray?.inbounds[at]?.settings.clients ?? []),
  ];
  const emails = (protocol: number) => uuids.map((_, index) => linkUuid(index + 1, protocol));
  const named = (field: string, values: readonly string[], protocol: number) =>
    values.map((value, index) => ({ [field]: value, email: emails(protocol)[index] }));
  t.strictSame(clients(0), named('id', uuids, 1), 'VLESS');
  t.strictSame(clients(1), named('id', uuids, 2), 'VMess');
  t.strictSame(clients(2), named('password', [...texts, key], 3), 'Trojan, byte for byte');
  t.strictSame(clients(3), named('auth', [...texts, key], 4), 'Hysteria2, byte for byte');
  const server = protocols[4]?.settings['serverKey'] as string;
  const keys = [...texts, key].map((text) =>
    shadowsocksUserKey('2022-blake3-aes-128-gcm', server, text),
  );
  t.equal(keys.at(-1), key, 'a key of the right length is the key itself');
  t.strictSame(clients(4), named('password', keys, 5), 'Shadowsocks');
  t.match(
    services.mtproto?.inbounds[0]?.users,
    uuids.map((uuid, index) => ({ name: emails(6)[index], secret: uuid.replaceAll('-', '') })),
  );
});

t.test('the smallest and largest ids and revisions are written in full', async (t) => {
  const ids = [1, 9, 10, 999_999_999, 1_000_000_000, 2 ** 32, 2 ** 53 - 1];
  const uuids = ids.map((_, index) => `${index}1111111-1111-4111-8111-1111111111ff`);
  const given = rows({
    protocols: [{ id: 2 ** 40, protocol: 'VMESS', port: 443, settings: {} }],
    links: ids.map((id, index) => ({
      storedUuid: uuids[index] as string,
      credential: uuid1,
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
      const idOf = (index: number): number => 10 ** (index % 15) + index;
      const sorted = uuids.map((_, index) => index).sort((one, other) => idOf(one) - idOf(other));
      const config = renderNodeConfig(
        rows({
          protocols: [{ id: 1, protocol: 'TROJAN', port: 443, settings: {} }],
          links: uuids.map((uuid, index) => link(uuid, 1, idOf(index))),
        }),
      );
      const [inbound] = config.services.xray?.inbounds ?? [];
      const inOrder = sorted.map((index) => uuids[index]);
      const expected = inOrder.map((uuid) => ({ password: uuid, email: uuid }));
      t.strictSame(inbound?.settings.clients, expected);
      t.equal(Object.keys(config.clientMap).join(), inOrder.join());
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
        credential: fc.oneof(fc.uuid(), fc.string({ minLength: 1, maxLength: 40 })),
        nodeProtocolId: fc.integer({ min: 1, max: 5 }),
        userId: fc.integer({ min: 1 }),
        subscriptionId: fc.integer({ min: 1 }),
      }),
      { selector: (row) => `${row.subscriptionId}/${row.nodeProtocolId}`, maxLength: 20 },
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
        credentialTexts: shuffle(credentialTexts(given.links)),
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
