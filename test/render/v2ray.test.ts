import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import t from 'tap';
import type { VpnProtocol } from '../../src/contract/enums.ts';
import type { XrayServiceConfig } from '../../src/contract/node-config.ts';
import { renderNodeConfig } from '../../src/render/render.ts';
import { goldenCases, goldenRows } from '../support/golden-cases.ts';
import { runV2ray } from '../support/v2ray.ts';
import { v2rayConfig } from '../support/v2ray-config.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'core-v2ray-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

function xrayOf(protocol: VpnProtocol, settings: Record<string, unknown>): XrayServiceConfig {
  const { xray } = renderNodeConfig(goldenRows({ name: '', protocol, settings })).services;
  if (xray === undefined) throw new Error(`${protocol} is a protocol of Xray's`);
  return xray;
}

/** Resolves if V2Ray accepts the configuration; it makes the same check when it starts. */
async function acceptedBy(name: string, config: Record<string, unknown>): Promise<string> {
  const file = path.join(folder, `${name}.json`);
  writeFileSync(file, JSON.stringify(config));
  return runV2ray('v2ray', ['-test', '-config', file]);
}

t.test('V2Ray takes VLESS, VMess and Trojan over raw and ws, with TLS and without', async (t) => {
  const made = await runV2ray('v2ctl', ['cert', '--domain=vpn.example.com']);
  const { certificate, key } = JSON.parse(made) as { certificate: string[]; key: string[] };
  const certificateFile = path.join(folder, 'cert.pem');
  const keyFile = path.join(folder, 'key.pem');
  writeFileSync(certificateFile, certificate.join('\n'));
  writeFileSync(keyFile, key.join('\n'));
  const tls = { certificateFile, keyFile, serverName: 'vpn.example.com' };
  for (const protocol of ['VLESS', 'VMESS', 'TROJAN'] as const) {
    for (const network of ['raw', 'ws']) {
      const ws = network === 'ws' ? { ws: { path: '/chat', host: 'cdn.example.com' } } : {};
      for (const security of [{ security: 'none' }, { security: 'tls', tls }]) {
        const name = `${protocol}-${network}-${security.security}`;
        const xray = xrayOf(protocol, { network, ...ws, ...security });
        t.match(await acceptedBy(name, v2rayConfig(xray)), /Configuration OK/, name);
      }
    }
  }
});

t.test('V2Ray refuses a faulty configuration, so its acceptance proves something', async (t) => {
  const config = v2rayConfig(xrayOf('VLESS', {}));
  const inbounds = config['inbounds'] as { settings: Record<string, unknown> }[];
  for (const inbound of inbounds) delete inbound.settings['decryption'];
  await t.rejects(acceptedBy('fault', config), /decryption/);
});

t.test('anything that V2Ray does not know is an error that names the inbound', async (t) => {
  const unknown = goldenCases.filter((given) => {
    return (
      given.protocol !== 'MTPROTO' && !/^(vless|vmess|trojan)-(raw|ws)-(none|tls)$/.test(given.name)
    );
  });
  t.ok(unknown.length > 0);
  for (const { name, protocol, settings } of unknown) {
    t.throws(
      () => v2rayConfig(xrayOf(protocol, settings)),
      /^Inbound in-12: V2Ray 4\.34 has no /,
      name,
    );
  }
});
