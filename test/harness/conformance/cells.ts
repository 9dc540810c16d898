import type { VpnProtocol } from '../../../src/contract/enums.ts';
import { type Certificate, serverName } from './certificate.ts';

/** A protocol on a transport, as an operator adds it. One row of the matrix. */
export interface Cell {
  /** `protocol-network-security`, with what else makes it differ. */
  name: string;
  protocol: VpnProtocol;
  settings: Record<string, unknown>;
  /** Vision copies the bytes of an inner TLS 1.3 connection as they are, so its traffic has to be one. */
  isInnerTls: boolean;
  /** Where nginx ends TLS in front of the inbound, how it passes on. The links say what nginx serves. */
  behind?: 'ws' | 'grpc';
}

/** The clients of a run. Each is an engine that apps are built on. */
export const clientNames = ['xray', 'sing-box', 'mihomo'] as const;
export type ClientName = (typeof clientNames)[number];

const networks = {
  raw: {},
  ws: { ws: { path: '/conformance' } },
  grpc: { grpc: { serviceName: 'conformance' } },
  xhttp: { xhttp: { path: '/conformance' } },
};

/** All protocols on all transports that Core allows. `realityTarget` is a TLS 1.3 server: host:port. */
export function allCells(certificate: Certificate, realityTarget: string): Cell[] {
  const { certificateFile, keyFile } = certificate;
  const tls = { certificateFile, keyFile, serverName };
  const reality = { target: realityTarget, serverNames: [serverName] };
  const streams = Object.entries(networks).flatMap(([network, block]) => [
    { name: `${network}-none`, settings: { network, ...block } },
    { name: `${network}-tls`, settings: { network, ...block, security: 'tls', tls } },
  ]);
  const overReality = (['raw', 'grpc', 'xhttp'] as const).map((network) => ({
    name: `${network}-reality`,
    settings: { network, ...networks[network], security: 'reality', reality },
  }));
  const anyClient = { ...reality, minClientVer: '1.0.0' };
  const flow = 'xtls-rprx-vision';
  const vision = [
    { name: 'raw-tls-vision', settings: { security: 'tls', tls, flow } },
    { name: 'raw-reality-vision', settings: { security: 'reality', reality, flow } },
    // Without it, Xray refuses the clients of other engines, which say that they are older.
    { name: 'raw-reality-any', settings: { security: 'reality', reality: anyClient } },
    { name: 'raw-reality-any-vision', settings: { security: 'reality', reality: anyClient, flow } },
  ];
  const of = (
    protocol: VpnProtocol,
    shapes: readonly { name: string; settings: Record<string, unknown> }[],
  ): Cell[] =>
    shapes.map(({ name, settings }) => ({
      name: `${protocol.toLowerCase()}-${name}`,
      protocol,
      settings: { listen: '127.0.0.1', ...settings },
      isInnerTls: 'flow' in settings,
    }));
  return [
    ...of('VLESS', [...streams, ...overReality, ...vision]),
    ...(['ws', 'grpc'] as const).map((network) => ({
      name: `vless-${network}-behind-nginx`,
      protocol: 'VLESS' as const,
      settings: { listen: '127.0.0.1', network, ...networks[network] },
      isInnerTls: false,
      behind: network,
    })),
    ...of('VMESS', streams),
    ...of('TROJAN', streams),
    ...of('SHADOWSOCKS', [
      { name: '2022-aes-128', settings: { method: '2022-blake3-aes-128-gcm' } },
      { name: '2022-aes-256', settings: { method: '2022-blake3-aes-256-gcm' } },
    ]),
    ...of('HYSTERIA2', [{ name: 'quic-tls', settings: { tls } }]),
  ];
}

/** Why a client has no such cell, by what it is built of; undefined if it should have one. */
export function missingIn(client: ClientName, { protocol, settings }: Cell): string | undefined {
  const { network = 'raw', security = 'none' } = settings;
  if (client === 'sing-box' && network === 'xhttp') return 'sing-box has no xhttp';
  if (client === 'mihomo' && network === 'xhttp' && protocol !== 'VLESS') {
    return 'mihomo has xhttp for VLESS only';
  }
  if (client === 'mihomo' && protocol === 'TROJAN' && security === 'none') {
    return 'mihomo speaks Trojan over TLS only';
  }
  return undefined;
}
