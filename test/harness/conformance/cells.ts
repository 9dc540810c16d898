import { createHash } from 'node:crypto';
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
  /** A given credential in place of a random one. It has to differ from user to user. */
  credential?: (who: string) => string;
  /** Whether clients get the other form of the link. */
  isOtherForm?: boolean;
}

/** The clients of a run. Each is an engine that apps are built on. */
export const clientNames = ['xray', 'sing-box', 'mihomo'] as const;
export type ClientName = (typeof clientNames)[number];

/**
 * Core takes an inbound on loopback without TLS for one behind a proxy that ends TLS, and its links say so.
 * Here clients reach it directly.
 */
const plainFaces = [{ host: '127.0.0.1', security: 'none' }];

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
    { name: `${network}-none`, settings: { network, ...block, faces: plainFaces } },
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
    ...of('VLESS', withExtras(tls)),
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
    ...withOtherForm(of('VMESS', streams)),
    ...withCredentials(tls),
  ];
}

/** XHTTP with further settings that client and server have to agree on. */
function withExtras(tls: Record<string, unknown>) {
  const shape = (name: string, mode: string, extra: Record<string, unknown>) => ({
    name: `xhttp-${name}`,
    settings: {
      ...{ network: 'xhttp', security: 'tls', tls },
      xhttp: { path: '/conformance', mode, extra },
    },
  });
  return [
    shape('session', 'packet-up', {
      ...{ sessionIDPlacement: 'header', sessionIDKey: 'X-Session' },
      ...{ seqPlacement: 'query', seqKey: 'part', uplinkHTTPMethod: 'PUT' },
    }),
    shape('padding', 'auto', {
      ...{ xPaddingBytes: 300, xPaddingObfsMode: true, xPaddingPlacement: 'cookie' },
      ...{ xPaddingKey: 'pad', xPaddingMethod: 'tokenish', noGRPCHeader: true },
    }),
    shape('posts', 'packet-up', {
      ...{ scMaxEachPostBytes: '100000', scMinPostsIntervalMs: '5-10', scMaxBufferedPosts: 60 },
      ...{ xmux: { maxConcurrency: '4-8', hKeepAlivePeriod: 30 }, headers: { 'X-Client': 'a' } },
    }),
    shape('uplink', 'packet-up', {
      ...{ uplinkDataPlacement: 'header', uplinkDataKey: 'X-Data', uplinkChunkSize: 3_000 },
      // All of a post has to fit into the head of a request.
      ...{ scMaxEachPostBytes: 4_000, scMinPostsIntervalMs: 1, serverMaxHeaderBytes: 16_384 },
    }),
  ];
}

/** VMess links as URIs, beside those in Base64. */
function withOtherForm(cells: readonly Cell[]): Cell[] {
  return cells
    .filter(({ name }) => name === 'vmess-ws-tls' || name === 'vmess-grpc-tls')
    .map((cell) => ({ ...cell, name: `${cell.name}-uri`, isOtherForm: true }));
}

/** What users bring along who move in from another panel. */
function withCredentials(tls: Record<string, unknown>): Cell[] {
  const common = { isInnerTls: false };
  const listen = '127.0.0.1';
  const keyOf = (bytes: number) => (who: string) =>
    createHash('sha256').update(who).digest().subarray(0, bytes).toString('base64');
  return [
    {
      ...common,
      name: 'vless-id-is-text',
      protocol: 'VLESS',
      settings: { listen, faces: plainFaces },
      // Xray takes up to 30 bytes for a text that it maps to a UUID.
      credential: (who) => `alice-phone-${who}`,
    },
    {
      ...common,
      name: 'trojan-odd-password',
      protocol: 'TROJAN',
      settings: { listen, security: 'tls', tls },
      credential: (who) => `pass,"word" é ${who}`,
    },
    {
      ...common,
      name: 'hysteria2-odd-password',
      protocol: 'HYSTERIA2',
      settings: { listen, tls },
      credential: (who) => `a/b?c=d&e#f%41 +ü@${who}`,
    },
    {
      ...common,
      name: 'hysteria2-user-password',
      protocol: 'HYSTERIA2',
      settings: { listen, tls },
      // All of the characters that mihomo reads in a link.
      credential: (who) => `${who.replaceAll(' ', '-')}:-._~$&+,;=Z9`,
    },
    ...(
      [
        ['128', 16],
        ['256', 32],
      ] as const
    ).map(([bits, bytes]) => ({
      ...common,
      name: `shadowsocks-2022-aes-${bits}-key`,
      protocol: 'SHADOWSOCKS' as const,
      settings: { listen, method: `2022-blake3-aes-${bits}-gcm` },
      credential: keyOf(bytes),
    })),
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
