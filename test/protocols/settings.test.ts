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
