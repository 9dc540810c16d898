import { z } from 'zod';
import { hostName, httpPath } from './addresses.ts';
import { checkFaces, type StreamFace } from './faces.ts';
import { alpnOfInbound, certificate } from './tls.ts';
import { xhttp } from './xhttp.ts';

// How the bytes of VLESS, VMess and Trojan travel. If Xray has a name for a setting, Core uses it.

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
  xhttp: xhttp.optional(),
  tls: z.strictObject({ ...certificate, alpn: alpnOfInbound.optional() }).optional(),
};

interface Transport {
  network: string;
  security: string;
  ws?: unknown;
  grpc?: unknown;
  xhttp?: unknown;
  tls?: { alpn?: string[] | undefined } | undefined;
  reality?: { serverNames?: readonly string[] | undefined } | undefined;
  flow?: string | undefined;
  splice?: boolean | undefined;
  decryption?: string | undefined;
  fallbacks?: unknown;
  faces?: StreamFace[] | undefined;
}

/** Checks that the parts of a transport go together. */
export function checkTransport(given: Transport, context: z.core.$RefinementCtx): void {
  const fault = (path: PropertyKey[], message: string): void => {
    context.addIssue({ code: 'custom', path, message });
  };
  for (const network of ['ws', 'grpc', 'xhttp'] as const) {
    if (given[network] !== undefined && given.network !== network) {
      fault([network], `Only goes with network ${network}`);
    }
  }
  for (const security of ['tls', 'reality'] as const) {
    if (given[security] === undefined && given.security === security) {
      fault([security], `Is needed with security ${security}`);
    }
    if (given[security] !== undefined && given.security !== security) {
      fault([security], `Only goes with security ${security}`);
    }
  }
  if (given.security === 'reality' && given.network === 'ws') {
    fault(['network'], 'Must be raw, grpc or xhttp with security reality');
  }
  checkVision(given, fault);
  checkFaces(given, fault);
}

/** Vision looks into the records of the TLS below it, or into those of VLESS' own encryption. */
function checkVision(
  { network, security, flow, splice, decryption, fallbacks }: Transport,
  fault: (path: PropertyKey[], message: string) => void,
): void {
  const overTls = network === 'raw' && security !== 'none';
  if (flow !== undefined && !overTls && decryption === undefined) {
    fault(['flow'], 'Only goes with network raw and security tls or reality, or with decryption');
  }
  if (splice !== undefined && flow === undefined) fault(['splice'], 'Only goes with a flow');
  if (fallbacks === undefined) return;
  if (network !== 'raw') fault(['fallbacks'], 'Only goes with network raw');
  if (decryption !== undefined) fault(['fallbacks'], 'Does not go with decryption');
}

/** The settings with the block of their network. A missing block gets its defaults. */
export function withNetworkBlock<T extends { network: Network }>(given: T): T {
  if (given.network === 'raw') return given;
  const block = transports[given.network].unwrap();
  return { ...given, [given.network]: block.parse(given[given.network as keyof T] ?? {}) };
}
