import { createHash } from 'node:crypto';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { VpnProtocol } from '../../src/contract/enums.ts';
import { CoreError } from '../../src/errors.ts';
import { validateProtocolSettings } from '../../src/protocols/settings.ts';
import {
  generateShadowsocksKey,
  isShadowsocksKey,
  shadowsocksMethods,
  shadowsocksUserKey,
} from '../../src/protocols/shadowsocks-key.ts';
import { generateX25519, x25519PublicKey } from '../../src/protocols/x25519.ts';

const uuid1 = '11111111-1111-4111-8111-111111111111';
const uuid2 = '22222222-2222-4222-8222-222222222222';

t.test('empty settings get defaults that work', async (t) => {
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

t.test('validated settings come back unchanged', async (t) => {
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

t.test('capitals in a short id and in a pin, and colons, are taken in one form', async (t) => {
  const reality = { target: 'a.example:443', shortIds: ['00AAff'] };
  t.match(validateProtocolSettings('VLESS', { security: 'reality', reality }), {
    reality: { shortIds: ['00aaff'] },
  });
  const pins = [`${'AB:'.repeat(31)}AB`];
  t.match(validateProtocolSettings('VLESS', { pins }), { pins: ['ab'.repeat(32)] });
});

t.test('settings that usual servers have are taken', async (t) => {
  const files = { certificateFile: '/c', keyFile: '/k' };
  const given: [VpnProtocol, object][] = [
    [
      'VLESS',
      { security: 'tls', tls: files, fallbacks: [{ alpn: 'h2', dest: '@nginx' }, { dest: 80 }] },
    ],
    ['TROJAN', { security: 'tls', tls: files, fallbacks: [{ dest: '127.0.0.1:80', xver: 2 }] }],
    ['VLESS', { listen: '@core', network: 'ws', sockopt: { acceptProxyProtocol: true } }],
    ['VMESS', { listen: '/run/core/ws.sock,0666', network: 'ws' }],
    [
      'VLESS',
      { network: 'xhttp', xhttp: { extra: { sessionIDTable: 'Base62', sessionIDLength: 8 } } },
    ],
    ['VLESS', { network: 'grpc', security: 'tls', tls: { ...files, alpn: ['h2'] } }],
    [
      'VLESS',
      {
        security: 'reality',
        reality: { target: '/run/nginx.sock', xver: 1, serverNames: ['a.example'] },
        faces: [{ host: 'a.example', sni: 'a.example' }],
      },
    ],
    ['HYSTERIA2', { tls: files, congestion: { up: '1 gbps' }, faces: [{ host: 'b.example' }] }],
    ['VLESS', { raw: { sniffing: { metadataOnly: true } } }],
  ];
  for (const [protocol, settings] of given) {
    t.ok(validateProtocolSettings(protocol, settings), JSON.stringify(settings));
  }
});

t.test('generated REALITY keys belong together and are new each time', async (t) => {
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

const pair = generateX25519();
const reality = { target: 'a.example:443' };

type Fault = [protocol: VpnProtocol, settings: unknown, message: RegExp];

function refusesEach(t: Test, faults: readonly Fault[]): void {
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
}

t.test('a fault of VLESS settings names its place', async (t) => {
  refusesEach(t, [
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
    ['VLESS', { listen: 'localhost' }, /listen: Must be an IP address/],
    ['VLESS', { publicHost: 'a b' }, /publicHost: /],
  ]);
});

t.test('what Xray would refuse, or what no client could use, is refused', async (t) => {
  const files = { certificateFile: '/c', keyFile: '/k' };
  const extra = (given: object, mode = 'auto') => ({
    network: 'xhttp',
    xhttp: { mode, extra: given },
  });
  const server = `mlkem768x25519plus.native.600s.${pair.privateKey}`;
  const client = `mlkem768x25519plus.native.0rtt.${pair.publicKey}`;
  refusesEach(t, [
    ['VLESS', { listen: 'fe80::1%eth0' }, /listen: Must be an IP address without a zone/],
    ['HYSTERIA2', { listen: '/run/a.sock', tls: files }, /listen: Must be an IP address without/],
    ['VLESS', { listen: '/run/a.sock,999' }, /listen: /],
    ['VLESS', { listen: `/${'a'.repeat(107)}` }, /listen: /],
    [
      'VLESS',
      { network: 'grpc', security: 'tls', tls: { ...files, alpn: ['http/1.1'] } },
      /tls\.alpn: Must have h2 with network grpc/,
    ],
    [
      'VMESS',
      { network: 'ws', security: 'tls', tls: { ...files, alpn: ['h2'] } },
      /tls\.alpn: Must have http\/1\.1 with network ws/,
    ],
    ['VLESS', { faces: [{ path: '/p' }] }, /faces\[0\]\.path: Only goes with network ws or xhttp/],
    ['VLESS', { faces: [{ security: 'none', sni: 'a.example' }] }, /faces\[0\]\.sni: /],
    ['VLESS', { faces: [] }, /faces: /],
    ['VLESS', { network: 'ws', faces: [{ security: 'tls', alpn: ['h2'] }] }, /faces\[0\]\.alpn: /],
    ['SHADOWSOCKS', { faces: [{ security: 'tls' }] }, /Unrecognized key: "security"/],
    [
      'VLESS',
      { security: 'reality', reality, faces: [{ security: 'tls' }] },
      /faces\[0\]\.security: REALITY ends on the node/,
    ],
    ['VLESS', { splice: true }, /splice: Only goes with a flow/],
    [
      'VLESS',
      { network: 'ws', fallbacks: [{ dest: 80 }] },
      /fallbacks: Only goes with network raw/,
    ],
    ['VLESS', { fallbacks: [{ dest: 80 }, { dest: 81 }] }, /fallbacks\[1\]: Matches the same/],
    ['TROJAN', { fallbacks: [{ dest: 'nowhere' }] }, /fallbacks\[0\]\.dest: /],
    ['VMESS', { fallbacks: [{ dest: 80 }] }, /Unrecognized key: "fallbacks"/],
    ['VLESS', extra({ headers: { Host: 'a' } }), /xhttp\.extra\.headers: Cannot hold Host/],
    ['VLESS', extra({ uplinkHTTPMethod: 'GET' }), /extra\.uplinkHTTPMethod: Can be GET only/],
    ['VLESS', extra({ uplinkDataPlacement: 'header' }), /extra\.uplinkDataPlacement: Must be auto/],
    ['VLESS', extra({ xPaddingBytes: 0 }), /extra\.xPaddingBytes: Must be above 0/],
    ['VLESS', extra({ xmux: { maxConnections: 1, maxConcurrency: '1-2' } }), /extra\.xmux: /],
    ['VLESS', extra({ sessionIDTable: 'hex', sessionIDLength: 7 }), /extra\.sessionIDLength: /],
    ['VLESS', extra({ colour: 1 }), /xhttp\.extra: Unrecognized key: "colour"/],
    ['VLESS', { decryption: server }, /encryption: Is needed with decryption/],
    ['VLESS', { encryption: client }, /decryption: Is needed with encryption/],
    [
      'VLESS',
      {
        decryption: server,
        encryption: client.replace(pair.publicKey, generateX25519().publicKey),
      },
      /encryption: Does not belong/,
    ],
    ['VLESS', { decryption: server, encryption: client, fallbacks: [{ dest: 80 }] }, /fallbacks: /],
    ['VLESS', { raw: { port: 1 } }, /raw\.port: Is written by Core/],
    [
      'TROJAN',
      { raw: { settings: { clients: [] } } },
      /raw\.settings\.clients: Is written by Core/,
    ],
    // Xray ignores the case of a key, and takes U+017F for an s.
    [
      'TROJAN',
      { raw: { Settings: { CLIENTS: [] } } },
      /raw\.settings\.clients: Is written by Core/,
    ],
    ['VMESS', { raw: { ſettings: { Uſers: [] } } }, /raw\.settings\.users: Is written by Core/],
    ['VLESS', { raw: { Port: 1 } }, /raw\.port: Is written by Core/],
    ['VLESS', { raw: { SETTINGS: null } }, /raw\.SETTINGS: Must be an object/],
    ['HYSTERIA2', { tls: files, obfs: { type: 'salamander', password: 'x' } }, /obfs\.password: /],
    ['HYSTERIA2', { tls: files, congestion: { control: 'force-brutal' } }, /congestion\.up: /],
    ['HYSTERIA2', { tls: files, congestion: { up: '100 kbps' } }, /congestion\.up: /],
    ['HYSTERIA2', { tls: files, pins: ['ab'] }, /pins\[0\]: Must be a SHA-256/],
  ]);
});

t.test('a fault of REALITY settings names its place', async (t) => {
  const faults: [reality: object, message: RegExp][] = [
    [{ target: 'a.example' }, /reality\.target: /],
    [{ target: 'a.example:0' }, /reality\.target: /],
    [{ target: '192.0.2.1:443' }, /reality\.serverNames: Is needed/],
    [{ ...reality, shortIds: ['ab', 'xyz'] }, /reality\.shortIds\[1\]: /],
    [{ ...reality, privateKey: 'short' }, /reality\.privateKey: /],
    [
      { ...reality, ...pair, publicKey: generateX25519().publicKey },
      /reality\.publicKey: Does not belong/,
    ],
    [{ ...reality, publicKey: pair.publicKey }, /reality\.privateKey: Is needed/],
    [{ ...reality, minClientVer: '26' }, /reality\.minClientVer: /],
  ];
  refusesEach(
    t,
    faults.map(([given, message]) => ['VLESS', { security: 'reality', reality: given }, message]),
  );
});

t.test('a fault of the settings of another protocol names its place', async (t) => {
  refusesEach(t, [
    ['TROJAN', { security: 'reality', reality }, /security: /],
    ['TROJAN', { flow: 'xtls-rprx-vision' }, /Unrecognized key: "flow"/],
    ['MTPROTO', { modes: { tls: false } }, /modes: At least one/],
    ['MTPROTO', { adTag: 'x' }, /adTag: Must be 32 hex digits/],
    ['MTPROTO', { publicPort: 0 }, /publicPort: /],
    ['MTPROTO', { maxUniqueIps: 0 }, /maxUniqueIps: /],
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
  ]);
});

t.test(
  'a Shadowsocks key depends on the link and the server, and has the length of its method',
  async (t) => {
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
  },
);
