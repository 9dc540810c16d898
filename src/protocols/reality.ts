import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { Fault } from '../errors.ts';
import { hostName } from './addresses.ts';
import { generateX25519, isX25519Key, x25519PublicKey } from './x25519.ts';

const x25519Key = z.string().refine(isX25519Key, 'Must be 32 bytes in base64url, 43 characters');

const hostAndPort = /^(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):([0-9]{1,5})$/;
const target = z
  .string()
  .max(262)
  .refine(
    (given) => isSocket(given) || hostAndPort.test(given),
    'Must be host:port, or a unix socket: /path or @name',
  )
  .refine((given) => {
    if (isSocket(given) || !hostAndPort.test(given)) return true;
    const port = Number(hostAndPort.exec(given)?.[1]);
    return port >= 1 && port <= 65_535;
  }, 'Must have a port between 1 and 65535');

function isSocket(given: string): boolean {
  return /^[/@][!-~]{1,107}$/.test(given);
}

const shortId = z
  .string()
  .transform((given) => given.toLowerCase())
  .pipe(z.string().regex(/^([0-9a-f]{2}){0,8}$/, 'Must be up to 16 hex digits, an even count'));

const clientVersion = z
  .string()
  .regex(/^(\d{1,3}\.){2}\d{1,3}$/, 'Must be like 1.8.0')
  .refine(
    (given) => given.split('.').every((part) => Number(part) <= 255),
    'Each part must be at most 255',
  );

const base64Url = (bytes: number) =>
  z
    .string()
    .refine(
      (given) => Buffer.from(given, 'base64url').toString('base64url') === given,
      'Must be base64url without padding',
    )
    .refine((given) => Buffer.from(given, 'base64url').length === bytes, `Must be ${bytes} bytes`);

/** https://xtls.github.io/en/config/transports/reality.html */
export const reality = z.strictObject({
  target,
  serverNames: z.array(hostName).min(1).max(64).optional(),
  privateKey: x25519Key.optional(),
  publicKey: x25519Key.optional(),
  shortIds: z.array(shortId).min(1).max(64).optional(),
  /**
   * The oldest version that a client may say it has. Without it Xray takes all before 26.7.11, and from
   * then on only those that say 26.3.27 or later. sing-box says 1.8.1, and mihomo 1.8.2.
   */
  minClientVer: clientVersion.optional(),
  maxClientVer: clientVersion.optional(),
  /** How far a client's clock may be off, in milliseconds. */
  maxTimeDiff: z.int().min(0).max(86_400_000).optional(),
  /** Version of the PROXY header that the target gets; none if 0. */
  xver: z.int().min(0).max(2).optional(),
  /** A second signature, which no quantum computer forges. `xray mldsa65` prints both. */
  mldsa65Seed: base64Url(32).optional(),
  mldsa65Verify: base64Url(1_952).optional(),
});

type RealitySettings = z.output<typeof reality>;

/**
 * Completes REALITY settings: it generates a key pair and a short id if none were given, and takes the
 * server name from the target. The answer is a fault if the settings contradict each other.
 */
export function completeReality(
  given: RealitySettings,
): { reality: RealitySettings } | { fault: Fault } {
  if ((given.mldsa65Seed === undefined) !== (given.mldsa65Verify === undefined)) {
    const missing = given.mldsa65Seed === undefined ? 'mldsa65Seed' : 'mldsa65Verify';
    return fault(missing, 'mldsa65Seed and mldsa65Verify need each other');
  }
  if (given.mldsa65Seed !== undefined && given.mldsa65Seed === given.privateKey) {
    return fault('mldsa65Seed', 'Must not be the private key');
  }
  if (given.privateKey === undefined && given.publicKey !== undefined) {
    return fault('privateKey', 'Is needed with a public key');
  }
  const pair =
    given.privateKey === undefined
      ? generateX25519()
      : { privateKey: given.privateKey, publicKey: x25519PublicKey(given.privateKey) };
  if (given.publicKey !== undefined && given.publicKey !== pair.publicKey) {
    return fault('publicKey', 'Does not belong to the private key');
  }
  const serverNames = given.serverNames ?? serverNamesOf(given.target);
  if (serverNames.length === 0) {
    return fault('serverNames', 'Is needed if the target is no host name');
  }
  const shortIds = given.shortIds ?? [randomBytes(8).toString('hex')];
  return { reality: { ...given, serverNames, ...pair, shortIds } };
}

function fault(place: string, message: string): { fault: Fault } {
  return { fault: { path: ['reality', place], message } };
}

/** The host of a target. None if that cannot be a TLS server name: an IP address, a unix socket. */
function serverNamesOf(target: string): string[] {
  if (isSocket(target)) return [];
  const host = target.slice(0, target.lastIndexOf(':'));
  return host.startsWith('[') || /^[0-9.]+$/.test(host) ? [] : [host];
}
