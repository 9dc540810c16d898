import { z } from 'zod';
import type { VpnProtocol } from '../contract/enums.ts';
import { type Fault, invalidArgument } from '../errors.ts';
import { hostName, listenIp, listenIpOrSocket, publicAddresses } from './addresses.ts';
import { alpnFault, placeFaces, quicFaces, streamFaces } from './faces.ts';
import { fallbacks } from './fallbacks.ts';
import { congestion, masquerade, obfs } from './hysteria.ts';
import { raw } from './raw.ts';
import { completeReality, reality } from './reality.ts';
import { generateShadowsocksKey, isShadowsocksKey, shadowsocksMethods } from './shadowsocks-key.ts';
import { sockopt } from './sockopt.ts';
import { certificateOnly, fingerprint, pins } from './tls.ts';
import { checkTransport, transports, withNetworkBlock } from './transports.ts';
import { decryption, encryption, pairFault } from './vless-encryption.ts';

/** What every inbound of Xray has. */
const ofXray = {
  /** Makes rules on domains and protocols work. Sniffing does not change where the traffic goes. */
  sniffing: z.boolean().default(true),
  raw: raw.optional(),
};

/** What VLESS, VMess and Trojan have. `fingerprint` and `pins` are for share links. */
const ofStreams = {
  listen: listenIpOrSocket.optional(),
  ...publicAddresses,
  faces: streamFaces.optional(),
  fingerprint: fingerprint.optional(),
  pins: pins.optional(),
  ...transports,
  sockopt: sockopt.optional(),
  ...ofXray,
};

const vlessObject = z.strictObject({
  ...ofStreams,
  security: z.enum(['none', 'tls', 'reality']).default('none'),
  reality: reality.optional(),
  flow: z.literal('xtls-rprx-vision').optional(),
  /** Lets the kernel move the bytes of vision: cheaper, but they count when a connection ends. */
  splice: z.boolean().optional(),
  fallbacks: fallbacks.optional(),
  decryption: decryption.optional(),
  encryption: encryption.optional(),
});

const vmessObject = z.strictObject({
  ...ofStreams,
  security: z.enum(['none', 'tls']).default('none'),
});

const trojanObject = vmessObject.extend({ fallbacks: fallbacks.optional() });

/** What the protocols have that listen on an address only. */
const ofAddresses = {
  listen: listenIp.optional(),
  ...publicAddresses,
  faces: placeFaces.optional(),
};

const shadowsocksObject = z.strictObject({
  ...ofAddresses,
  method: z.enum(shadowsocksMethods).default('2022-blake3-aes-128-gcm'),
  serverKey: z.string().optional(),
  network: z.enum(['tcp,udp', 'tcp', 'udp']).default('tcp,udp'),
  ...ofXray,
});

const hysteriaObject = z.strictObject({
  ...ofAddresses,
  faces: quicFaces.optional(),
  pins: pins.optional(),
  /** QUIC has no mode without TLS. */
  tls: certificateOnly,
  udpIdleTimeout: z.int().min(2).max(600).optional(),
  masquerade: masquerade.optional(),
  obfs: obfs.optional(),
  congestion: congestion.optional(),
  ...ofXray,
});

const mtProtoObject = z.strictObject({
  ...ofAddresses,
  /** In tls mode a connection looks like one to this site. */
  tlsDomain: hostName.default('www.cloudflare.com'),
  modes: z
    .strictObject({
      classic: z.boolean().default(false),
      secure: z.boolean().default(false),
      tls: z.boolean().default(true),
    })
    .refine((modes) => modes.classic || modes.secure || modes.tls, 'At least one must be true')
    .prefault({}),
  adTag: z
    .string()
    .regex(/^[0-9a-f]{32}$/i, 'Must be 32 hex digits')
    .optional(),
  maxTcpConns: z.int().min(1).max(1_000_000).optional(),
  maxUniqueIps: z.int().min(1).max(1_000_000).optional(),
});

const schemas = {
  VLESS: vlessObject
    .superRefine(checkTransport)
    .superRefine(checkEncryption)
    .transform(withNetworkBlock),
  VMESS: vmessObject.superRefine(checkTransport).transform(withNetworkBlock),
  TROJAN: trojanObject.superRefine(checkTransport).transform(withNetworkBlock),
  SHADOWSOCKS: shadowsocksObject.superRefine((given, context) => {
    if (given.serverKey === undefined || isShadowsocksKey(given.method, given.serverKey)) return;
    const length = given.method === '2022-blake3-aes-128-gcm' ? 16 : 32;
    const message = `Must be ${length} bytes in base64 with method ${given.method}`;
    context.addIssue({ code: 'custom', path: ['serverKey'], message });
  }),
  HYSTERIA2: hysteriaObject,
  MTPROTO: mtProtoObject,
};

function checkEncryption(
  given: { decryption?: string | undefined; encryption?: string | undefined },
  context: z.core.$RefinementCtx,
): void {
  const { decryption: server, encryption: client } = given;
  const fault = (path: string, message: string): void => {
    context.addIssue({ code: 'custom', path: [path], message });
  };
  if (server !== undefined && client === undefined) {
    fault('encryption', 'Is needed with decryption: share links hold it');
  } else if (client !== undefined && server === undefined) {
    fault('decryption', 'Is needed with encryption');
  } else if (client !== undefined && server !== undefined) {
    const message = pairFault(server, client);
    if (message !== undefined) fault('encryption', message);
  }
}

export type ProtocolSettings = { [P in VpnProtocol]: z.output<(typeof schemas)[P]> };

/** The names of a protocol's settings, in the order of the schema. */
export const settingNames: Record<VpnProtocol, readonly string[]> = {
  VLESS: Object.keys(vlessObject.shape),
  VMESS: Object.keys(vmessObject.shape),
  TROJAN: Object.keys(trojanObject.shape),
  SHADOWSOCKS: Object.keys(shadowsocksObject.shape),
  HYSTERIA2: Object.keys(hysteriaObject.shape),
  MTPROTO: Object.keys(mtProtoObject.shape),
};

/**
 * The settings with their defaults. It generates no keys, so the same input gives the same output.
 * @throws CoreError INVALID_ARGUMENT naming every place at fault.
 */
export function parseProtocolSettings<P extends VpnProtocol>(
  protocol: P,
  settings: unknown,
): ProtocolSettings[P] {
  const parsed = schemas[protocol].safeParse(settings);
  if (!parsed.success) refuse(protocol, parsed.error.issues);
  return parsed.data as ProtocolSettings[P];
}

/**
 * The settings that Core stores for those that an operator gave. It checks them, fills in every default,
 * and adds keys, short ids and server names that are needed and were not given. For its own output it
 * returns the same again.
 * @throws CoreError INVALID_ARGUMENT naming every place at fault.
 */
export function validateProtocolSettings(
  protocol: VpnProtocol,
  settings: unknown,
): Record<string, unknown> {
  if (protocol === 'VLESS') {
    const parsed = parseProtocolSettings(protocol, settings);
    requireAlpn(protocol, parsed);
    if (parsed.reality === undefined) return parsed;
    const completed = completeReality(parsed.reality);
    if ('fault' in completed) refuse(protocol, [completed.fault]);
    return { ...parsed, reality: completed.reality };
  }
  if (protocol === 'SHADOWSOCKS') {
    const parsed = parseProtocolSettings(protocol, settings);
    return { ...parsed, serverKey: parsed.serverKey ?? generateShadowsocksKey(parsed.method) };
  }
  const parsed = parseProtocolSettings(protocol, settings);
  if ('network' in parsed) requireAlpn(protocol, parsed);
  return parsed;
}

/**
 * Checks that a client app can speak the transport. Nodes may have such settings from before Core checked
 * this, and Xray starts with them. So they are refused if an operator gives them, and rendered all the same.
 */
function requireAlpn(
  protocol: VpnProtocol,
  given: { network: string; tls?: { alpn?: string[] | undefined } | undefined },
): void {
  const message = given.tls?.alpn && alpnFault(given.network, given.tls.alpn);
  if (message !== undefined) refuse(protocol, [{ path: ['tls', 'alpn'], message }]);
}

function refuse(protocol: VpnProtocol, faults: readonly Fault[]): never {
  throw invalidArgument(`${protocol} settings`, faults, 'settings');
}
