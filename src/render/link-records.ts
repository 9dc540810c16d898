import assert from 'node:assert/strict';
import { uuidText } from '../protocols/credential.ts';
import { linkUuidBytesSql } from './link-uuid.ts';

// A node may have 100,000 links. As objects they would cost Postgres' driver, the garbage collector
// and the renderer more than the rest of the configuration. So Postgres encodes each link as a record
// of fixed length, and the renderer writes the configuration from the records.

/** The records of some links, one after the other. */
export type LinkRecords = Buffer;

/**
 * A record has the 16 bytes of the UUID, the 16 bytes of the credential as a UUID, and then four 64-bit
 * integers, most significant byte first: the ids of the node protocol, the user and the subscription, and
 * the expiry in milliseconds since 1970. The expiry is 0 if the link has none, or if its protocol is not
 * MTPROTO: no other configuration names an expiry. Its bit 62 says that the credential is derived.
 */
export const linkRecordBytes = 64;
/** Where a record has its credential. */
export const credentialUuidOffset = 16;
const nodeProtocolAt = 32;
const userAt = 40;
const subscriptionAt = 48;
const expiresAt = 56;
/** Of the upper half of the expiry. */
const derivedBit = 0x4000_0000;

/**
 * A record in SQL, from the tables s (subscriptions), p (node_protocols) and l (subscription_links, with nulls
 * if the link has no row). A derived credential lacks the bits of the version: `linksOfProtocols` sets
 * them, because in SQL the hash would be computed three times. protocols/credential.ts says what it is.
 */
export const linkRecordSql = `coalesce(uuid_send(l.uuid), ${linkUuidBytesSql('s.id', 'p.id')})
    || coalesce(uuid_send(coalesce(l.credential_uuid, l.uuid, s.credential_uuid)),
      substr(sha256(uuid_send(s.link_secret) || int8send(p.id)), 1, 16))
    || int8send(p.id) || int8send(s.user_id) || int8send(s.id)
    || int8send(CASE WHEN p.protocol = 'MTPROTO'
      THEN coalesce(floor(extract(epoch FROM s.expires_at) * 1000)::bigint, 0) ELSE 0 END
      | CASE WHEN coalesce(l.uuid, s.credential_uuid) IS NULL THEN 4611686018427387904 ELSE 0 END)`;

/** A credential that is not the text of the UUID in its record, such as a password. */
export interface CredentialText {
  nodeProtocolId: number;
  subscriptionId: number;
  text: string;
}

/** In SQL, from the same tables: the given credential of a link, null if it is derived or the link's UUID. */
export const givenCredentialSql =
  'CASE WHEN l.uuid IS NULL THEN s.credential ELSE l.credential END';

/** In SQL: whether the protocol takes the text of a credential, and that is not the UUID of the record. */
export const hasCredentialTextSql = `p.protocol IN ('TROJAN', 'HYSTERIA2', 'SHADOWSOCKS')
    AND ${givenCredentialSql} <> coalesce(l.credential_uuid, s.credential_uuid)::text`;

/** The offsets of some records, in the order of the ids of subscription and protocol. */
export interface SortedLinks {
  records: LinkRecords;
  offsets: Uint32Array;
}

/** The links of one protocol. */
export interface ProtocolLinks extends SortedLinks {
  /** Credentials that are no UUIDs, by the id of the subscription. */
  texts: ReadonlyMap<number, string>;
}

/** The credential as a UUID in lower case. */
export function credentialUuidAt({ records }: SortedLinks, offset: number): string {
  return uuidText(records, offset + credentialUuidOffset);
}

/** The credential as it was given, or its UUID. */
export function credentialTextAt(links: ProtocolLinks, offset: number): string {
  return links.texts.get(subscriptionIdAt(links, offset)) ?? credentialUuidAt(links, offset);
}

export function userIdAt({ records }: SortedLinks, offset: number): number {
  return readId(records, offset + userAt);
}

export function subscriptionIdAt({ records }: SortedLinks, offset: number): number {
  return readId(records, offset + subscriptionAt);
}

/** ISO 8601 in UTC. Null if the link never expires, or if its protocol is not MTPROTO. */
export function expiryAt({ records }: SortedLinks, offset: number): string | null {
  const upper = records.readUInt32BE(offset + expiresAt) & ~derivedBit;
  const expiresMs = upper * 0x1_0000_0000 + records.readUInt32BE(offset + expiresAt + 4);
  return expiresMs === 0 ? null : new Date(expiresMs).toISOString();
}

/** Adds two halves, which needs no BigInt: ids are below 2^53. */
function readId(records: Buffer, at: number): number {
  return records.readUInt32BE(at) * 0x1_0000_0000 + records.readUInt32BE(at + 4);
}

/**
 * The links of these protocols, sorted by the ids of subscription and protocol, all together and by protocol.
 * Links of other protocols are left out: after a rollback there may be some.
 */
export function linksOfProtocols(
  rows: { links: readonly LinkRecords[]; credentialTexts?: readonly CredentialText[] },
  nodeProtocolIds: readonly number[],
): { all: SortedLinks; of: (nodeProtocolId: number) => ProtocolLinks } {
  const records = Buffer.concat(rows.links);
  assert.equal(records.length % linkRecordBytes, 0, 'records are whole');
  const sorted = sortedOffsets(records);
  const offsetsOf = new Map(nodeProtocolIds.map((id) => [id, new Uint32Array(sorted.length)]));
  const counts = new Map(nodeProtocolIds.map((id) => [id, 0]));
  const all = new Uint32Array(sorted.length);
  let served = 0;
  for (const offset of sorted) {
    const id = readId(records, offset + nodeProtocolAt);
    const offsets = offsetsOf.get(id);
    if (offsets === undefined) continue;
    completeCredential(records, offset);
    const count = counts.get(id) ?? 0;
    offsets[count] = offset;
    counts.set(id, count + 1);
    all[served] = offset;
    served += 1;
  }
  const texts = textsByProtocol(rows.credentialTexts ?? []);
  return {
    all: { records, offsets: all.subarray(0, served) },
    of: (id) => ({
      records,
      offsets: (offsetsOf.get(id) ?? all).subarray(0, counts.get(id) ?? 0),
      texts: texts.get(id) ?? noTexts,
    }),
  };
}

const noTexts: ReadonlyMap<number, string> = new Map();

function textsByProtocol(texts: readonly CredentialText[]): Map<number, Map<number, string>> {
  const byProtocol = new Map<number, Map<number, string>>();
  for (const { nodeProtocolId, subscriptionId, text } of texts) {
    const ofProtocol = byProtocol.get(nodeProtocolId) ?? new Map<number, string>();
    byProtocol.set(nodeProtocolId, ofProtocol.set(subscriptionId, text));
  }
  return byProtocol;
}

/** Makes the bytes of a derived credential a UUID of version 4. A second call changes nothing. */
function completeCredential(records: Buffer, offset: number): void {
  if (((records[offset + expiresAt] as number) & (derivedBit >>> 24)) === 0) return;
  const version = offset + credentialUuidOffset + 6;
  const variant = offset + credentialUuidOffset + 8;
  records[version] = ((records[version] as number) & 0x0f) | 0x40;
  records[variant] = ((records[variant] as number) & 0x3f) | 0x80;
}

/**
 * The offsets of all records, sorted by the ids of subscription and protocol. It sorts numbers, because a typed
 * array of numbers needs no callback. Each number has the id of the subscription and, below it, the place of
 * the record.
 */
function sortedOffsets(records: Buffer): Uint32Array {
  const count = records.length / linkRecordBytes;
  const placeFactor = 2 ** Math.ceil(Math.log2(count + 1));
  const keys = new Float64Array(count);
  let idMax = 0;
  for (let place = 0; place < count; place += 1) {
    const id = readId(records, place * linkRecordBytes + subscriptionAt);
    if (id > idMax) idMax = id;
    keys[place] = id * placeFactor + place;
  }
  const offsets = new Uint32Array(count);
  // A number holds 53 bits.
  if (idMax >= 2 ** 53 / placeFactor) {
    for (let place = 0; place < count; place += 1) offsets[place] = place * linkRecordBytes;
    return offsets.sort(comparing(records));
  }
  keys.sort();
  let start = 0;
  let startId = -1;
  for (let index = 0; index < count; index += 1) {
    const key = keys[index] as number;
    const id = Math.floor(key / placeFactor);
    offsets[index] = (key - id * placeFactor) * linkRecordBytes;
    if (id === startId) continue;
    sortWhole(records, offsets.subarray(start, index));
    start = index;
    startId = id;
  }
  sortWhole(records, offsets.subarray(start));
  return offsets;
}

/** Sorts the few links of one subscription by their protocols. */
function sortWhole(records: Buffer, offsets: Uint32Array): void {
  if (offsets.length > 1) offsets.sort(comparing(records));
}

function comparing(records: Buffer): (left: number, right: number) => number {
  return (left, right) =>
    readId(records, left + subscriptionAt) - readId(records, right + subscriptionAt) ||
    readId(records, left + nodeProtocolAt) - readId(records, right + nodeProtocolAt);
}
