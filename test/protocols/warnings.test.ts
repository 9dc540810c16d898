import t from 'tap';
import type { VpnProtocol } from '../../src/contract/enums.ts';
import { validateProtocolSettings } from '../../src/protocols/settings.ts';
import { warningsOf } from '../../src/protocols/warnings.ts';

const warnings = (protocol: VpnProtocol, settings: object) =>
  warningsOf(protocol, validateProtocolSettings(protocol, settings));
const tls = { certificateFile: '/c', keyFile: '/k' };
const secure = { security: 'tls', tls };

t.test('REALITY settings say which clients they lock out, and what to set', async (t) => {
  const reality = (given: object) =>
    warnings('VLESS', {
      security: 'reality',
      reality: { target: 'a.example:443', ...given },
    });
  t.match(reality({}), [/from 26\.7\.11 on locks out .*sing-box .*mihomo .*set it to 1\.8\.0/]);
  t.same(reality({ minClientVer: '1.8.0' }), []);
  t.match(reality({ minClientVer: '1.8.2' }), [
    /locks out sing-box \(says 1\.8\.1\): 1\.8\.0 lets/,
  ]);
  t.match(reality({ minClientVer: '26.3.27' }), [/sing-box .* and mihomo/]);
  t.match(reality({ minClientVer: '1.8.0', maxClientVer: '1.8.1' }), [/newer Xray, mihomo/]);
});

t.test('an inbound behind a proxy needs to know whom to believe', async (t) => {
  const ws = { network: 'ws', listen: '127.0.0.1' };
  t.match(warnings('VLESS', ws), [/sockopt\.trustedXForwardedFor/]);
  t.match(warnings('VMESS', { network: 'ws', listen: '@a' }), [/trustedXForwardedFor/]);
  t.same(warnings('VLESS', { ...ws, sockopt: { trustedXForwardedFor: ['X-Forwarded-For'] } }), []);
  t.same(warnings('VLESS', { ...ws, sockopt: { acceptProxyProtocol: true } }), []);
});

t.test('settings without encryption, and with splice, say what follows', async (t) => {
  t.match(warnings('VLESS', {}), [/Without TLS everybody/]);
  t.match(warnings('TROJAN', {}), [/Without TLS everybody/]);
  t.same(warnings('VMESS', {}), []);
  t.same(warnings('VLESS', secure), []);
  t.same(warnings('VLESS', { faces: [{ host: 'a.example', security: 'tls' }] }), []);
  t.match(warnings('VLESS', { ...secure, flow: 'xtls-rprx-vision', splice: true }), [
    /With splice/,
  ]);
});

t.test('XHTTP whose posts do not fit into the head of a request', async (t) => {
  const warnings = (extra: object) =>
    warningsOf('VMESS', { network: 'xhttp', xhttp: { mode: 'packet-up', extra } });
  const inHead = { uplinkDataPlacement: 'header' };
  t.match(warnings(inHead), [/Up to 1000000 bytes .* do not fit into 8192/]);
  t.match(warnings({ ...inHead, scMaxEachPostBytes: '4000-7000' }), [/Up to 7000 bytes/]);
  t.same(warnings({ ...inHead, scMaxEachPostBytes: 4_000 }), []);
  t.same(warnings({ ...inHead, scMaxEachPostBytes: 9_000, serverMaxHeaderBytes: 16_384 }), []);
  t.same(warnings({ uplinkDataPlacement: 'body' }), []);
});
