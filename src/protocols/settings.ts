import { z } from 'zod';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError, type Issue, issuePath } from '../errors.ts';
import {
  addresses,
  certificateOnly,
  checkTransport,
  hostName,
  masquerade,
  reality,
  sniffing,
  transports,
  withNetworkBlock,
} from './parts.ts';
import { completeReality, type SettingsFault } from './reality.ts';
import { generateShadowsocksKey, isShadowsocksKey, shadowsocksMethods } from './shadowsocks-key.ts';

const vlessObject = z.strictObject({
  ...addresses,
  ...transports,
  security: z.enum(['none', 'tls', 'reality']).default('none'),
  reality: reality.optional(),
  flow: z.literal('xtls-rprx-vision').optional(),
  sniffing,
});

/** The settings of Trojan, and of VMess. */
const tlsObject = z.strictObject({
  ...addresses,
  ...transports,
  security: z.enum(['none', 'tls']).default('none'),
  sniffing,
});

const shadowsocksObject = z.strictObject({
  ...addresses,
  method: z.enum(shadowsocksMethods).default('2022-blake3-aes-128-gcm'),
  serverKey: z.string().optional(),
  network: z.enum(['tcp,udp', 'tcp', 'udp']).default('tcp,udp'),
  sniffing,
});

const hysteriaObject = z.strictObject({
  ...addresses,
  /** QUIC has no mode without TLS. */
  tls: certificateOnly,
  udpIdleTimeout: z.int().min(2).max(600).optional(),
  masquerade: masquerade.optional(),
  sniffing,
});

const mtProtoObject = z.strictObject({
  ...addresses,
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

const tlsProtocol = tlsObject.superRefine(checkTransport).transform(withNetworkBlock);

const schemas = {
  VLESS: vlessObject.superRefine(checkTransport).transform(withNetworkBlock),
  VMESS: tlsProtocol,
  TROJAN: tlsProtocol,
  SHADOWSOCKS: shadowsocksObject.superRefine((given, context) => {
    if (given.serverKey === undefined || isShadowsocksKey(given.method, given.serverKey)) return;
    const length = given.method === '2022-blake3-aes-128-gcm' ? 16 : 32;
    const message = `Must be ${length} bytes in base64 with method ${given.method}`;
    context.addIssue({ code: 'custom', path: ['serverKey'], message });
  }),
  HYSTERIA2: hysteriaObject,
  MTPROTO: mtProtoObject,
};

export type ProtocolSettings = { [P in VpnProtocol]: z.output<(typeof schemas)[P]> };

/** The names of a protocol's settings, in the order of the schema. */
export const settingNames: Record<VpnProtocol, readonly string[]> = {
  VLESS: Object.keys(vlessObject.shape),
  VMESS: Object.keys(tlsObject.shape),
  TROJAN: Object.keys(tlsObject.shape),
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
    if (parsed.reality === undefined) return parsed;
    const completed = completeReality(parsed.reality);
    if ('fault' in completed) refuse(protocol, [completed.fault]);
    return { ...parsed, reality: completed.reality };
  }
  if (protocol === 'SHADOWSOCKS') {
    const parsed = parseProtocolSettings(protocol, settings);
    return { ...parsed, serverKey: parsed.serverKey ?? generateShadowsocksKey(parsed.method) };
  }
  return parseProtocolSettings(protocol, settings);
}

function refuse(protocol: VpnProtocol, faults: readonly SettingsFault[]): never {
  const issues: Issue[] = faults.map((fault) => ({
    path: issuePath(fault.path, 'settings'),
    message: fault.message,
  }));
  const text = issues.map((issue) => `${issue.path}: ${issue.message}`).join('; ');
  throw new CoreError('INVALID_ARGUMENT', `Invalid ${protocol} settings: ${text}`, { issues });
}
