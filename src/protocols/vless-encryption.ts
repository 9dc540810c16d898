import { z } from 'zod';
import { x25519PublicKey } from './x25519.ts';

// VLESS' own encryption, by which it needs no TLS. `xray vlessenc` prints both texts:
// mlkem768x25519plus.native.600s.KEY for the server, mlkem768x25519plus.native.0rtt.KEY for clients.

const serverKeyBytes = [32, 64];
const clientKeyBytes = [32, 1_184];
/** Parts that are shorter are paddings: Xray tells a key from a padding by the length of its text. */
const keyCharsMin = 20;

interface Parts {
  mode: string;
  time: string;
  keys: Buffer[];
}

function partsOf(given: string, time: RegExp, keyBytes: readonly number[]): Parts | undefined {
  const [method, mode = '', seconds = '', ...rest] = given.split('.');
  if (method !== 'mlkem768x25519plus' || !['native', 'xorpub', 'random'].includes(mode)) return;
  if (!time.test(seconds) || !/^[\w.-]+$/.test(given)) return;
  const firstKey = rest.findIndex((part) => part.length >= keyCharsMin);
  const paddings = firstKey === -1 ? rest : rest.slice(0, firstKey);
  if (!paddings.every((part) => /^\d{1,3}-\d{1,5}-\d{1,5}$/.test(part))) return;
  const keys = rest.slice(paddings.length).map((part) => Buffer.from(part, 'base64url'));
  if (keys.length === 0 || !keys.every((key) => keyBytes.includes(key.length))) return;
  return { mode, time: seconds, keys };
}

const serverTime = /^\d{1,5}(-\d{1,5})?s$/;
const clientTime = /^(0|1)rtt$/;

/** What the server decrypts with. It holds private keys. */
export const decryption = z
  .string()
  .max(8_192)
  .refine(
    (given) => partsOf(given, serverTime, serverKeyBytes) !== undefined,
    'Must be as xray vlessenc prints it: mlkem768x25519plus.native.600s.KEY',
  );

/** What client apps encrypt with; share links hold it. */
export const encryption = z
  .string()
  .max(16_384)
  .refine(
    (given) => partsOf(given, clientTime, clientKeyBytes) !== undefined,
    'Must be as xray vlessenc prints it: mlkem768x25519plus.native.0rtt.KEY',
  );

/** Why the two do not belong together. Undefined if they do, as far as Core can tell. */
export function pairFault(server: string, client: string): string | undefined {
  const one = partsOf(server, serverTime, serverKeyBytes);
  const other = partsOf(client, clientTime, clientKeyBytes);
  if (one === undefined || other === undefined) return undefined;
  if (one.mode !== other.mode) return `Must have the mode of decryption, ${one.mode}`;
  if (one.keys.length !== other.keys.length) return 'Must have as many keys as decryption';
  const wrong = one.keys.some((key, index) => !belongs(key, other.keys[index]));
  return wrong ? 'Does not belong to the key in decryption' : undefined;
}

/** Core derives public keys of X25519. Of ML-KEM it knows the lengths only. */
function belongs(key: Buffer, publicKey: Buffer | undefined): boolean {
  if (key.length === 64) return publicKey?.length === 1_184;
  return publicKey?.toString('base64url') === x25519PublicKey(key.toString('base64url'));
}
