import { isIP } from 'node:net';
import { z } from 'zod';
import { isX25519Key } from './x25519.ts';

// Parts that the settings of several protocols share. If Xray has a name for a setting, Core uses it.

export const hostName = z
  .string()
  .max(253)
  .regex(/^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/, 'Must be a host name or an IPv4 address');
const publicHost = z
  .string()
  .max(253)
  .regex(/^[A-Za-z0-9:]([A-Za-z0-9.:-]*[A-Za-z0-9:])?$/, 'Must be a host name or an IP address');
const httpPath = z
  .string()
  .max(255)
  .regex(/^\/[!-~]*$/, 'Must start with / and hold printable ASCII only');
/** A path on the node. Core cannot check that the file exists. */
const filePath = z.string().max(4_096).regex(/^\//, 'Must be an absolute path on the node');
export const port = z.int().min(1).max(65_535);

/** What every protocol has. The public address is for share links, if it differs from the node's. */
export const addresses = {
  listen: z
    .string()
    .refine((given) => isIP(given) !== 0, 'Must be an IP address')
    .optional(),
  publicHost: publicHost.optional(),
  publicPort: port.optional(),
};

/** Makes rules on domains and protocols work. Sniffing does not change where the traffic goes. */
export const sniffing = z.boolean().default(true);

const certificate = {
  certificateFile: filePath,
  keyFile: filePath,
  serverName: hostName.optional(),
};
/** TLS for QUIC, which decides the ALPN itself. */
export const certificateOnly = z.strictObject(certificate);

export const networks = ['raw', 'ws', 'grpc', 'xhttp'] as const;
type Network = (typeof networks)[number];

export const transports = {
  network: z.enum(networks).default('raw'),
  ws: z.strictObject({ path: httpPath.default('/'), host: hostName.optional() }).optional(),
  grpc: z
    .strictObject({
      serviceName: z
        .string()
        .regex(/^[\w./-]{1,255}$/, 'Must be letters, digits and _ . / - only')
        .default('grpc'),
    })
    .optional(),
  xhttp: z
    .strictObject({
      path: httpPath.default('/'),
      mode: z.enum(['auto', 'packet-up', 'stream-up', 'stream-one']).default('auto'),
      host: hostName.optional(),
    })
    .optional(),
  tls: z
    .strictObject({
      ...certificate,
      alpn: z
        .array(z.enum(['h2', 'http/1.1']))
        .min(1)
        .max(2)
        .optional(),
    })
    .optional(),
};

const x25519Key = z.string().refine(isX25519Key, 'Must be 32 bytes in base64url, 43 characters');
const realityTarget = z
  .string()
  .max(262)
  .regex(/^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}$/, 'Must be host:port')
  .refine((target) => {
    const targetPort = Number(target.slice(target.lastIndexOf(':') + 1));
    return targetPort >= 1 && targetPort <= 65_535;
  }, 'Must have a port between 1 and 65535');

export const reality = z.strictObject({
  target: realityTarget,
  serverNames: z.array(hostName).min(1).max(64).optional(),
  privateKey: x25519Key.optional(),
  publicKey: x25519Key.optional(),
  shortIds: z
    .array(z.string().regex(/^([0-9a-f]{2}){0,8}$/, 'Must be up to 16 hex digits, an even count'))
    .min(1)
    .max(64)
    .optional(),
  /** The oldest version of Xray that a client may have. By default Xray 26 refuses those before 26.3.27. */
  minClientVer: z
    .string()
    .regex(/^(\d{1,3}\.){2}\d{1,3}$/, 'Must be like 1.8.0')
    .refine(
      (given) => given.split('.').every((part) => Number(part) <= 255),
      'Each part must be at most 255',
    )
    .optional(),
});

/** The web site that somebody without credentials sees at a Hysteria2 server. */
export const masquerade = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('proxy'),
    url: z.url({ protocol: /^https?$/ }).max(2_048),
    rewriteHost: z.boolean().default(true),
  }),
  z.strictObject({ type: z.literal('file'), dir: filePath }),
  z.strictObject({
    type: z.literal('string'),
    content: z.string().max(65_536),
    statusCode: z.int().min(100).max(599).default(200),
  }),
]);

type Transport = { network: string; security: string } & Partial<Record<string, unknown>>;

/** Checks that the parts of a transport go together. */
export function checkTransport(given: Transport, context: z.core.$RefinementCtx): void {
  const fault = (place: string, message: string): void => {
    context.addIssue({ code: 'custom', path: [place], message });
  };
  for (const network of ['ws', 'grpc', 'xhttp']) {
    if (given[network] !== undefined && given.network !== network) {
      fault(network, `Only goes with network ${network}`);
    }
  }
  for (const security of ['tls', 'reality']) {
    if (given[security] === undefined && given.security === security) {
      fault(security, `Is needed with security ${security}`);
    }
    if (given[security] !== undefined && given.security !== security) {
      fault(security, `Only goes with security ${security}`);
    }
  }
  if (given.security === 'reality' && given.network === 'ws') {
    fault('network', 'Must be raw, grpc or xhttp with security reality');
  }
  if (given['flow'] !== undefined && (given.network !== 'raw' || given.security === 'none')) {
    fault('flow', 'Only goes with network raw and security tls or reality');
  }
}

/** The settings with the block of their network. A missing block gets its defaults. */
export function withNetworkBlock<T extends { network: Network }>(given: T): T {
  if (given.network === 'raw') return given;
  const block = transports[given.network].unwrap();
  return { ...given, [given.network]: block.parse(given[given.network as keyof T] ?? {}) };
}
