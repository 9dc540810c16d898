import t from 'tap';
import type { VpnProtocol } from '../../src/contract/enums.ts';
import { xrayEnv } from '../../src/render/xray-env.ts';

const tls = { certificateFile: '/c', keyFile: '/k' };
const vision = { security: 'tls', tls, flow: 'xtls-rprx-vision' };

t.test('splicing stays on only if every protocol with vision asks for it', async (t) => {
  const envOf = (...given: [VpnProtocol, object][]) =>
    xrayEnv(
      given.map(([protocol, settings], index) => ({
        id: index + 1,
        protocol,
        port: 443,
        settings,
      })),
    );
  const off = { 'xray.buf.splice': 'disable' };
  t.equal(envOf(['VLESS', {}], ['TROJAN', {}]), undefined, 'without vision nothing is spliced');
  t.same(envOf(['VLESS', vision]), off);
  t.same(envOf(['VLESS', { ...vision, splice: false }]), off);
  t.equal(envOf(['VLESS', { ...vision, splice: true }], ['VLESS', {}]), undefined);
  t.same(envOf(['VLESS', { ...vision, splice: true }], ['VLESS', vision]), off);
});
