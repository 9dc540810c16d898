import t from 'tap';
import { parseVersion, protocolsThatStart, versionFaults } from '../../src/render/xray-versions.ts';

const hysteria = { id: 7, protocol: 'HYSTERIA2', port: 443, settings: {} } as const;
const vless = { id: 8, protocol: 'VLESS', port: 443, settings: {} } as const;

t.test('a version is the first number with dots in what a node reports', async (t) => {
  t.same(parseVersion('Xray 26.7.28 (Xray, Penetrates Everything.) 1234567 (go1.26)'), [26, 7, 28]);
  t.same(parseVersion('v25.12'), [25, 12, 0]);
  t.equal(parseVersion('newest'), undefined);
  t.equal(parseVersion(null), undefined);
});

t.test(
  'Hysteria2 is left out before Xray has its inbound, and warned of before it counts users and sends UDP',
  async (t) => {
    const faults = (version: string | null) => versionFaults(version, [vless, hysteria]);
    t.match(faults('25.12.8'), [
      { nodeProtocolId: 7, isLeftOut: true, message: /needs Xray 26\.3\.23/ },
    ]);
    t.match(faults('26.3.27'), [
      { nodeProtocolId: 7, isLeftOut: false, message: /needs Xray 26\.4\.13/ },
    ]);
    t.match(faults('26.4.13'), [
      { nodeProtocolId: 7, isLeftOut: false, message: /needs Xray 26\.5\.3/ },
    ]);
    t.same(faults('26.5.3'), []);
    t.same(faults('26.10.1'), [], 'parts are numbers');
    t.same(faults(null), [], 'no version is known');
    t.same(protocolsThatStart('25.12.8', [vless, hysteria]), [vless]);
    t.same(protocolsThatStart('26.3.27', [vless, hysteria]), [vless, hysteria]);
  },
);
