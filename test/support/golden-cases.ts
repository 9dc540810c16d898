import type { VpnProtocol } from '../../src/contract/enums.ts';
import { validateProtocolSettings } from '../../src/protocols/settings.ts';
import type { NodeRows } from '../../src/render/node-rows.ts';
import { encodeLinkRecords } from './link-records.ts';

/** One rendered configuration for a reviewer: `test/golden/<name>.json`. */
interface GoldenCase {
  name: string;
  protocol: VpnProtocol;
  settings: Record<string, unknown>;
}

const tls = { certificateFile: '/etc/core/cert.pem', keyFile: '/etc/core/key.pem' };
const named = { ...tls, serverName: 'vpn.example.com' };
/** A key that was made for these files and is used nowhere else. */
const reality = {
  target: 'www.example.com:443',
  privateKey: 'yBaw532IIUNuQWDTncozoBaLJmcd1JZzvsHUgVPxMk8',
  shortIds: ['0123456789abcdef'],
};
const ws = { path: '/chat', host: 'cdn.example.com' };
const grpc = { serviceName: 'chat' };
const xhttp = { path: '/chat', mode: 'auto', host: 'cdn.example.com' };
const overTls = [
  { name: 'raw-tls', settings: { security: 'tls', tls: named } },
  { name: 'ws-tls', settings: { network: 'ws', ws, security: 'tls', tls: named } },
  { name: 'grpc-tls', settings: { network: 'grpc', grpc, security: 'tls', tls: named } },
  { name: 'xhttp-tls', settings: { network: 'xhttp', xhttp, security: 'tls', tls: named } },
];
const flow = 'xtls-rprx-vision';

export const goldenCases: readonly GoldenCase[] = [
  { name: 'vless-raw-none', protocol: 'VLESS', settings: {} },
  {
    name: 'vless-raw-reality',
    protocol: 'VLESS',
    settings: { security: 'reality', reality, flow },
  },
  {
    name: 'vless-grpc-reality',
    protocol: 'VLESS',
    settings: { network: 'grpc', grpc, security: 'reality', reality },
  },
  {
    name: 'vless-xhttp-reality',
    protocol: 'VLESS',
    settings: { network: 'xhttp', xhttp: { path: '/chat' }, security: 'reality', reality },
  },
  ...overTls.map((one) => ({
    name: `vless-${one.name}`,
    protocol: 'VLESS' as const,
    settings: one.name === 'raw-tls' ? { ...one.settings, flow } : one.settings,
  })),
  ...overTls.map((one) => ({
    name: `trojan-${one.name}`,
    protocol: 'TROJAN' as const,
    settings: one.settings,
  })),
  ...overTls.map((one) => ({
    name: `vmess-${one.name}`,
    protocol: 'VMESS' as const,
    settings: one.settings,
  })),
  {
    name: 'vless-raw-fallbacks',
    protocol: 'VLESS',
    settings: {
      security: 'tls',
      tls: { ...named, alpn: ['h2', 'http/1.1'] },
      flow,
      splice: true,
      fallbacks: [
        { path: '/ws', dest: '@vless-ws', xver: 1 },
        { alpn: 'h2', dest: '/run/nginx-h2.sock' },
        { dest: 8_080 },
      ],
    },
  },
  {
    name: 'vless-ws-socket',
    protocol: 'VLESS',
    settings: {
      listen: '/run/core/ws.sock,0660',
      network: 'ws',
      ws: { path: '/chat' },
      sockopt: { trustedXForwardedFor: ['X-Forwarded-For'] },
      faces: [{ host: 'cdn.example.com', port: 443, security: 'tls' }],
    },
  },
  {
    name: 'vless-xhttp-extra',
    protocol: 'VLESS',
    settings: {
      listen: '127.0.0.1',
      network: 'xhttp',
      xhttp: {
        path: '/chat',
        mode: 'packet-up',
        extra: { xPaddingBytes: '100-1000', scMaxBufferedPosts: 30, xmux: { maxConnections: 4 } },
      },
    },
  },
  {
    name: 'vless-raw-encryption',
    protocol: 'VLESS',
    settings: {
      flow,
      decryption: 'mlkem768x25519plus.native.600s.yBaw532IIUNuQWDTncozoBaLJmcd1JZzvsHUgVPxMk8',
      encryption: 'mlkem768x25519plus.native.0rtt.7xhH4b_VkliBxGulljcyPOH-bYUA2dl-XAdZAsfhk04',
      raw: { sniffing: { domainsExcluded: ['courier.push.apple.com'] } },
    },
  },
  {
    name: 'hysteria2-hysteria-obfs',
    protocol: 'HYSTERIA2',
    settings: {
      tls: named,
      obfs: { type: 'salamander', password: 'cry-me-a-river' },
      congestion: { control: 'brutal', up: '100 mbps', down: '200 mbps' },
    },
  },
  {
    name: 'shadowsocks-raw-aes128gcm',
    protocol: 'SHADOWSOCKS',
    settings: { serverKey: 'AAECAwQFBgcICQoLDA0ODw==' },
  },
  {
    name: 'shadowsocks-raw-aes256gcm',
    protocol: 'SHADOWSOCKS',
    settings: {
      method: '2022-blake3-aes-256-gcm',
      serverKey: 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=',
    },
  },
  {
    name: 'hysteria2-hysteria-tls',
    protocol: 'HYSTERIA2',
    settings: {
      tls: named,
      udpIdleTimeout: 60,
      masquerade: { type: 'proxy', url: 'https://www.example.com/' },
    },
  },
  {
    name: 'mtproto-telemt-tls',
    protocol: 'MTPROTO',
    settings: {
      tlsDomain: 'www.example.com',
      adTag: '0123456789abcdef0123456789abcdef',
      maxTcpConns: 50,
      maxUniqueIps: 3,
    },
  },
];

const goldenCredentials = [
  '0b8f5f26-3c1d-4e2a-9a47-6f1f0c5d7e11',
  '9c2e4d88-71aa-4f0b-8d53-2b6a9e7f4c22',
] as const;

/** A node with the one protocol of the case, two users, two outbounds and a rule. */
export function goldenRows(given: GoldenCase): NodeRows {
  return {
    node: { id: 7, host: 'node.example.com', ip: '192.0.2.7', revision: 3 },
    protocols: [
      {
        id: 12,
        protocol: given.protocol,
        port: 8443,
        settings: validateProtocolSettings(given.protocol, given.settings),
      },
    ],
    outbounds: [
      { tag: 'direct', protocol: 'freedom', settings: {}, position: 1 },
      { tag: 'blocked', protocol: 'blackhole', settings: {}, position: 2 },
    ],
    rules: [{ position: 1, rule: { protocol: ['bittorrent'], outboundTag: 'blocked' } }],
    links: encodeLinkRecords(
      goldenCredentials.map((credential, index) => ({
        credential,
        nodeProtocolId: 12,
        userId: index + 1,
        subscriptionId: index + 101,
        expiresAt: given.protocol === 'MTPROTO' && index === 0 ? '2030-01-31T00:00:00.000Z' : null,
      })),
    ),
  };
}
