import { z } from 'zod';
import { bytesOfBase64Url } from '../routing/values.ts';

// Ids and keys of outbounds, as Xray reads them.

/** What Xray reads as a UUID: hex with or without dashes, or a text of up to 30 bytes that it maps to one. */
const uuidText = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;
const mappedBytesMax = 30;

export const userId = z
  .string()
  .refine(
    (given) => uuidText.test(given) || isMapped(given),
    `Must be a UUID, or a text of up to ${mappedBytesMax} bytes, which Xray maps to one`,
  );

function isMapped(given: string): boolean {
  return given !== '' && Buffer.byteLength(given) <= mappedBytesMax;
}

/** Xray takes a WireGuard key in hex, or in base64 of either alphabet, with or without the last `=`. */
export const wireGuardKey = z.string().refine((given) => {
  if (/^[0-9a-f]{64}$/i.test(given)) return true;
  const bare = given.replace(/=$/, '');
  return /^([A-Za-z0-9+/]{43}|[A-Za-z0-9_-]{43})$/.test(bare) && given.length <= 44;
}, 'Must be 32 bytes in base64 (43 characters and =) or hex (64 digits)');

/** The public key of a REALITY server. */
export const realityKey = z
  .string()
  .refine(
    (given) => bytesOfBase64Url(given) === 32,
    'Must be 32 bytes in base64url, 43 characters',
  );

const pqBytes = new Set([32, 1_184]);

/**
 * The `encryption` of a VLESS client: `none`, or `mlkem768x25519plus`, the mode, the round trips, padding, and
 * a key for each hop.
 */
export const vlessEncryption = z.string().refine((given) => {
  if (given === 'none') return true;
  const [name, mode = '', trips = '', ...rest] = given.split('.');
  return (
    name === 'mlkem768x25519plus' &&
    ['native', 'xorpub', 'random'].includes(mode) &&
    ['0rtt', '1rtt'].includes(trips) &&
    rest.length > 0 &&
    rest.every((part) => part.length < 20 || pqBytes.has(bytesOfBase64Url(part))) &&
    rest.some((part) => part.length >= 20)
  );
}, 'Must be none, or mlkem768x25519plus.native|xorpub|random.0rtt|1rtt and a key');

/** The bytes of a key, by the method of Shadowsocks 2022. */
export const shadowsocks2022KeyBytes: Readonly<Record<string, number>> = {
  '2022-blake3-aes-128-gcm': 16,
  '2022-blake3-aes-256-gcm': 32,
  '2022-blake3-chacha20-poly1305': 32,
};

/** What is wrong with the password of a Shadowsocks 2022 client; undefined if nothing is. */
export function shadowsocks2022Fault(method: string, password: string): string | undefined {
  const bytes = shadowsocks2022KeyBytes[method];
  if (bytes === undefined) return undefined;
  const keys = password.split(':');
  if (keys.length > 1 && !method.includes('aes')) return `Must be one key with ${method}`;
  const isKey = (key: string): boolean =>
    /^[A-Za-z0-9+/]+={0,2}$/.test(key) &&
    key.length === Math.ceil(bytes / 3) * 4 &&
    Buffer.from(key, 'base64').length === bytes;
  return keys.every(isKey)
    ? undefined
    : `Must be ${bytes} bytes in base64 with ${method}, or several keys with a colon between them`;
}
