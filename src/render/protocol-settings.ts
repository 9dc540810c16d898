import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError, type Issue } from '../errors.ts';
import { generateX25519, isX25519Key, x25519PublicKey } from './x25519.ts';

const hostName = z
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
/** A path on the node, where Core cannot look. */
const filePath = z.string().max(4_096).regex(/^\//, 'Must be an absolute path on the node');
const x25519Key = z.string().refine(isX25519Key, 'Must be 32 bytes in base64url, 43 characters');
const realityTarget = z
  .string()
  .max(262)
  .regex(/^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}$/, 'Must be host:port')
  .refine((target) => {
    const port = Number(target.slice(target.lastIndexOf(':') + 1));
    return port >= 1 && port <= 65_535;
  }, 'Must have a port between 1 and 65535');

const transports = {
  network: z.enum(['raw', 'ws', 'grpc', 'xhttp']).default('raw'),
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
      certificateFile: filePath,
      keyFile: filePath,
      serverName: hostName.optional(),
    })
    .optional(),
  /** Lets rules that name domains or protocols work; the destination itself stays as it is. */
  sniffing: z.boolean().default(true),
};

const reality = z.strictObject({
  target: realityTarget,
  serverNames: z.array(hostName).min(1).max(64).optional(),
  privateKey: x25519Key.optional(),
  publicKey: x25519Key.optional(),
  shortIds: z
    .array(z.string().regex(/^([0-9a-f]{2}){0,8}$/, 'Must be up to 16 hex digits, an even count'))
    .min(1)
    .max(64)
    .optional(),
});

type Transport = { network: string; security: string } & Partial<Record<string, unknown>>;

/** What the parts of a transport need from each other. */
function checkTransport(given: Transport, context: z.core.$RefinementCtx): void {
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

/** The block of the chosen network, with its defaults where it was not given. */
function withNetworkBlock<T extends { network: 'raw' | 'ws' | 'grpc' | 'xhttp' }>(given: T): T {
  if (given.network === 'raw') return given;
  const block = transports[given.network].unwrap();
  return { ...given, [given.network]: block.parse(given[given.network as keyof T] ?? {}) };
}

const vless = z
  .strictObject({
    ...transports,
    security: z.enum(['none', 'tls', 'reality']).default('none'),
    reality: reality.optional(),
    flow: z.literal('xtls-rprx-vision').optional(),
  })
  .superRefine(checkTransport)
  .transform(withNetworkBlock);

const trojan = z
  .strictObject({ ...transports, security: z.enum(['none', 'tls']).default('none') })
  .superRefine(checkTransport)
  .transform(withNetworkBlock);

const mtProto = z.strictObject({
  publicHost: publicHost.optional(),
  publicPort: z.int().min(1).max(65_535).optional(),
  /** The site that a connection in tls mode looks like. */
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
});

const schemas = { VLESS: vless, TROJAN: trojan, MTPROTO: mtProto };

export type RenderedProtocol = keyof typeof schemas;
export type VlessSettings = z.output<typeof vless>;
export type TrojanSettings = z.output<typeof trojan>;
export type MtProtoSettings = z.output<typeof mtProto>;

/**
 * The settings with their defaults, without making keys: the same input gives the same output.
 * @throws CoreError INVALID_ARGUMENT naming every place at fault.
 */
export function parseProtocolSettings<P extends RenderedProtocol>(
  protocol: P,
  settings: unknown,
): z.output<(typeof schemas)[P]> {
  const parsed = schemas[protocol].safeParse(settings);
  if (!parsed.success) refuse(protocol, parsed.error.issues);
  return parsed.data as z.output<(typeof schemas)[P]>;
}

/**
 * What is to be stored of the settings that an operator gave: checked, with every default filled
 * in, and for REALITY with a key pair, short ids and server names made where none were given. The
 * output is itself valid input, and then comes back unchanged.
 * @throws CoreError INVALID_ARGUMENT naming every place at fault.
 */
export function validateProtocolSettings(
  protocol: VpnProtocol,
  settings: unknown,
): Record<string, unknown> {
  if (protocol !== 'VLESS' && protocol !== 'TROJAN' && protocol !== 'MTPROTO') {
    throw new CoreError(
      'INVALID_ARGUMENT',
      `Core does not render ${protocol} yet; it renders VLESS, TROJAN and MTPROTO`,
    );
  }
  if (protocol !== 'VLESS') return parseProtocolSettings(protocol, settings);
  const parsed = parseProtocolSettings(protocol, settings);
  if (parsed.reality === undefined) return parsed;
  return { ...parsed, reality: completeReality(parsed.reality) };
}

function completeReality(given: z.output<typeof reality>): z.output<typeof reality> {
  if (given.privateKey === undefined && given.publicKey !== undefined) {
    refuse('VLESS', [{ path: ['reality', 'privateKey'], message: 'Is needed with a public key' }]);
  }
  const pair =
    given.privateKey === undefined
      ? generateX25519()
      : { privateKey: given.privateKey, publicKey: x25519PublicKey(given.privateKey) };
  if (given.publicKey !== undefined && given.publicKey !== pair.publicKey) {
    refuse('VLESS', [
      { path: ['reality', 'publicKey'], message: 'Does not belong to the private key' },
    ]);
  }
  return {
    target: given.target,
    serverNames: given.serverNames ?? [serverNameOf(given.target)],
    ...pair,
    shortIds: given.shortIds ?? [randomBytes(8).toString('hex')],
  };
}

/** Host of a target; a bare IP address cannot be a TLS server name. */
function serverNameOf(target: string): string {
  const host = target.slice(0, target.lastIndexOf(':'));
  if (host.startsWith('[') || /^[0-9.]+$/.test(host)) {
    refuse('VLESS', [
      {
        path: ['reality', 'serverNames'],
        message: 'Is needed where the target is an IP address',
      },
    ]);
  }
  return host;
}

function refuse(
  protocol: VpnProtocol,
  faults: readonly { path: readonly PropertyKey[]; message: string }[],
): never {
  const issues: Issue[] = faults.map((fault) => ({
    path: placeOf(fault.path),
    message: fault.message,
  }));
  const text = issues.map((issue) => `${issue.path}: ${issue.message}`).join('; ');
  throw new CoreError('INVALID_ARGUMENT', `Invalid ${protocol} settings: ${text}`, { issues });
}

/** `['reality', 'shortIds', 2]` to `reality.shortIds[2]`. */
function placeOf(path: readonly PropertyKey[]): string {
  let place = '';
  for (const part of path) {
    if (typeof part === 'number') place += `[${part}]`;
    else place += place === '' ? String(part) : `.${String(part)}`;
  }
  return place === '' ? 'settings' : place;
}
