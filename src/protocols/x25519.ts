import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';

/** A key pair as Xray writes it: 32 bytes each, in base64url without padding. */
interface X25519Pair {
  privateKey: string;
  publicKey: string;
}

/** The bytes in front of the 32 bytes of an X25519 private key in PKCS #8 (RFC 8410). */
const pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** A new random key pair. */
export function generateX25519(): X25519Pair {
  const { privateKey } = generateKeyPairSync('x25519');
  const jwk = privateKey.export({ format: 'jwk' });
  return { privateKey: String(jwk.d), publicKey: String(jwk.x) };
}

/** Whether `text` is 32 bytes in canonical base64url. */
export function isX25519Key(text: string): boolean {
  const bytes = Buffer.from(text, 'base64url');
  return bytes.length === 32 && bytes.toString('base64url') === text;
}

/** The public key of a private key. */
export function x25519PublicKey(privateKey: string): string {
  const der = Buffer.concat([pkcs8Prefix, Buffer.from(privateKey, 'base64url')]);
  const key = createPublicKey(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }));
  return String(key.export({ format: 'jwk' }).x);
}
