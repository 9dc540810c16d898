import { createHash, hash } from 'node:crypto';
import { isStorable } from '../text.ts';

// What a client app holds to get in: a UUID, a password, a key. An operator may give any text, for instance
// the one of another panel. Core reads it for each protocol as the proxy does.

const charsMax = 256;

/** Why a text cannot be a credential; undefined if it can. A proxy may put it into a header of HTTP. */
export function credentialFault(text: string): string | undefined {
  if (text === '') return 'Must not be empty';
  if (text.length > charsMax) return `Must have at most ${charsMax} characters`;
  if (/\p{Cc}/u.test(text) || !isStorable(text)) return 'Must not hold control characters';
  return undefined;
}

/** Dashes may be missing, as Xray reads it. What follows the digits does not count. */
const looseUuid = /^-?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})/i;
/** Two more forms in which Hysteria2 knows a UUID: behind `urn:uuid:`, and between any two characters. */
const wrappedUuid = /^(?:urn:uuid:(.{36})|.(.{36}).)$/i;

/**
 * The UUID that a proxy reads a credential as, in lower case. A text that is no UUID becomes the UUID of
 * version 5 that Xray gives to texts of up to 30 bytes; Core gives it to longer ones, too.
 * https://github.com/XTLS/Xray-core/blob/main/common/uuid/uuid.go
 */
export function credentialUuid(text: string): string {
  const bytes = Buffer.byteLength(text);
  const wrapped = wrappedUuid.exec(text);
  const inner = wrapped?.[1] ?? wrapped?.[2] ?? text;
  const parts = wrapped !== null || (bytes >= 32 && bytes <= 36) ? looseUuid.exec(inner) : null;
  if (parts !== null) return parts.slice(1).join('-').toLowerCase();
  const digest = createHash('sha1').update(Buffer.alloc(16)).update(text).digest();
  return versionedUuid(digest, 5);
}

/**
 * The credential of a link for which nobody gave one. link-records.ts has the same in SQL.
 * @param linkSecret UUID of the subscription's secret.
 */
export function derivedCredential(linkSecret: string, nodeProtocolId: number): string {
  const input = Buffer.alloc(24);
  input.write(linkSecret.replaceAll('-', ''), 'hex');
  input.writeBigInt64BE(BigInt(nodeProtocolId), 16);
  return versionedUuid(hash('sha256', input, 'buffer'), 4);
}

/** The first 16 bytes as a UUID of this version. */
function versionedUuid(bytes: Buffer, version: number): string {
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | (version << 4), 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  return uuidText(bytes, 0);
}

/** The UUID of the 16 bytes at an offset, in lower case. */
export function uuidText(bytes: Buffer, offset: number): string {
  const hex = bytes.toString('hex', offset, offset + 16);
  const parts = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)];
  return `${parts.join('-')}-${hex.slice(20)}`;
}
