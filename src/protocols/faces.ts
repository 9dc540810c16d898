import { z } from 'zod';
import { hostName, httpPath, port, publicHost } from './addresses.ts';
import { fingerprint, pins } from './tls.ts';

// The public faces of a protocol: how client apps reach it where that differs from how it listens, for
// instance through a CDN that ends TLS. Each face is a share link of its own.

const facesMax = 16;

/** What a client app calls the face, behind the name of the connection. */
const name = z
  .string()
  .min(1)
  .max(64)
  .refine((given) => !/\p{C}/u.test(given), 'Must not hold control characters');

const place = { name: name.optional(), host: publicHost.optional(), port: port.optional() };
const quic = { ...place, sni: hostName.optional(), pins: pins.optional() };
const stream = {
  ...quic,
  security: z.enum(['none', 'tls']).optional(),
  /** The HTTP header Host. */
  httpHost: hostName.optional(),
  path: httpPath.optional(),
  alpn: z
    .array(z.enum(['h3', 'h2', 'http/1.1']))
    .min(1)
    .max(3)
    .optional(),
  fingerprint: fingerprint.optional(),
};

const listOf = <T extends z.ZodRawShape>(shape: T) =>
  z.array(z.strictObject(shape)).min(1).max(facesMax);

/** Of VLESS, VMess and Trojan. */
export const streamFaces = listOf(stream);
/** Of Hysteria2. */
export const quicFaces = listOf(quic);
/** Of Shadowsocks and MTProto. */
export const placeFaces = listOf(place);

export type StreamFace = z.output<typeof streamFaces>[number];
export type QuicFace = z.output<typeof quicFaces>[number];

interface Inbound {
  network: string;
  security: string;
  faces?: readonly StreamFace[] | undefined;
  reality?: { serverNames?: readonly string[] | undefined } | undefined;
}

/** Reports what in a face does not go with the inbound. */
export function checkFaces(
  { network, security, faces = [], reality }: Inbound,
  fault: (path: PropertyKey[], message: string) => void,
): void {
  const isHttp = network === 'ws' || network === 'xhttp';
  for (const [index, face] of faces.entries()) {
    const refuse = (field: keyof StreamFace, message: string): void => {
      if (face[field] !== undefined) fault(['faces', index, field], message);
    };
    if (!isHttp) {
      refuse('path', 'Only goes with network ws or xhttp');
      if (network !== 'grpc') refuse('httpHost', 'Only goes with network ws, grpc or xhttp');
    }
    if (security === 'reality') {
      refuse('security', 'REALITY ends on the node, so a face cannot replace it');
      refuse('alpn', 'Does not go with REALITY');
      refuse('pins', 'Does not go with REALITY');
      if (face.sni !== undefined && reality?.serverNames?.includes(face.sni) === false) {
        refuse('sni', 'Must be one of reality.serverNames');
      }
    }
    if ((face.security ?? security) === 'none' && face.security !== undefined) {
      for (const field of ['sni', 'alpn', 'fingerprint', 'pins'] as const) {
        refuse(field, 'Only goes with security tls');
      }
    }
    if (face.alpn !== undefined) {
      const message = alpnFault(network, face.alpn);
      if (message !== undefined) refuse('alpn', message);
    }
  }
}

/** Why an ALPN does not go with a network. */
export function alpnFault(network: string, alpn: readonly string[]): string | undefined {
  if (network === 'grpc' && !alpn.includes('h2')) return 'Must have h2 with network grpc';
  if (network === 'ws' && !alpn.includes('http/1.1')) return 'Must have http/1.1 with network ws';
  if (network !== 'xhttp' && alpn.includes('h3')) return 'Can have h3 with network xhttp only';
  return undefined;
}
