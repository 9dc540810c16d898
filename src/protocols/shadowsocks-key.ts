import assert from 'node:assert/strict';
import { hash, randomBytes } from 'node:crypto';
import { credentialUuid } from './credential.ts';

/** The methods of Shadowsocks 2022 with which a server can have several users. */
export const shadowsocksMethods = ['2022-blake3-aes-128-gcm', '2022-blake3-aes-256-gcm'] as const;
type ShadowsocksMethod = (typeof shadowsocksMethods)[number];

/** Bytes of a key, from the table in https://xtls.github.io/en/config/inbounds/shadowsocks.html */
export const keyBytes: Record<ShadowsocksMethod, number> = {
  '2022-blake3-aes-128-gcm': 16,
  '2022-blake3-aes-256-gcm': 32,
};

/** Characters of a key in base64. */
export const keyChars: Record<ShadowsocksMethod, number> = {
  '2022-blake3-aes-128-gcm': 24,
  '2022-blake3-aes-256-gcm': 44,
};

/** A new random key for the method, in base64 as Xray expects it. */
export function generateShadowsocksKey(method: ShadowsocksMethod): string {
  return randomBytes(keyBytes[method]).toString('base64');
}

/** Whether `text` is a key for the method, in canonical base64. */
export function isShadowsocksKey(method: ShadowsocksMethod, text: string): boolean {
  const bytes = Buffer.from(text, 'base64');
  return bytes.length === keyBytes[method] && bytes.toString('base64') === text;
}

/**
 * The key of a user on a server. A credential that is a key of the method's length is the key itself; from
 * any other Core derives one.
 */
export function shadowsocksUserKey(
  method: ShadowsocksMethod,
  serverKey: string,
  credential: string,
): string {
  if (isShadowsocksKey(method, credential)) return credential;
  return derivedUserKey(method, serverKey, credentialUuid(credential));
}

/**
 * The key that follows from a credential. It stays the same until the credential is rotated or the server
 * gets another key.
 *
 * It is SHA-256 over the server key and the credential as a UUID. Every user knows the server key, since each
 * share link contains it, so the secret is the credential. For each method all inputs of the hash have the same
 * length, so nobody can extend one hash to that of a longer input. An HMAC would not be safer, and would take
 * three times as long for a node of 100,000 users.
 */
export function derivedUserKey(method: ShadowsocksMethod, serverKey: string, uuid: string): string {
  assert.equal(uuid.length, 36);
  const input = `core shadowsocks 2022:${method}:${serverKey}:${uuid}`;
  const digest = hash('sha256', input, 'base64');
  return keyBytes[method] === 32 ? digest : first16Bytes(digest);
}

/**
 * Cuts the base64 of 32 bytes to that of the first 16. A detour through bytes would take twice as long.
 * Character 22 contains the last two bits of byte 16 and four bits of byte 17. Those four become zero.
 */
function first16Bytes(digest: string): string {
  const value = alphabet.indexOf(digest.charAt(21));
  return `${digest.slice(0, 21)}${alphabet.charAt(value & 0b110000)}==`;
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
