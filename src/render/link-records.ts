import assert from 'node:assert/strict';

// A node may have 100,000 links. As objects they cost Postgres' driver, the garbage collector and
// the renderer more than all else of a configuration together. So they come out of Postgres packed,
// and are written from that.

/** Some links of a node as `linksSql` packs them, each `linkBytes` long. */
export type PackedLinks = Buffer;

/**
 * A record: the UUID's 16 bytes, then as 64-bit integers, the most significant byte first, the ids
 * of node protocol, user and subscription, and the expiry in milliseconds since 1970, 0 where there
 * is none. It is read for MTPROTO only, whose configuration is the one that holds it.
 */
export const linkBytes = 48;
const uuidBytes = 16;
const nodeProtocolAt = uuidBytes;
const userAt = 24;
const subscriptionAt = 32;
const expiresAt = 40;

/** The same record in SQL, of the tables l (subscription_links), s (subscriptions), p. */
export const packedLinkSql = `uuid_send(l.uuid) || int8send(l.node_protocol_id)
    || int8send(s.user_id) || int8send(s.id) || int8send(CASE WHEN p.protocol = 'MTPROTO'
      THEN coalesce(floor(extract(epoch FROM s.expires_at) * 1000)::bigint, 0) ELSE 0 END)`;

/** Links in the order of their UUIDs: the offsets of their records. */
export interface Links {
  records: PackedLinks;
  offsets: Uint32Array;
}

/** Of the record at an offset: the UUID as text, in lower case. */
export function uuidAt({ records }: Links, offset: number): string {
  const hex = records.toString('hex', offset, offset + uuidBytes);
  const parts = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)];
  return `${parts.join('-')}-${hex.slice(20)}`;
}

export function userIdAt({ records }: Links, offset: number): number {
  return readId(records, offset + userAt);
}

export function subscriptionIdAt({ records }: Links, offset: number): number {
  return readId(records, offset + subscriptionAt);
}

/** ISO 8601 in UTC, or null where it does not run out (or is not of MTPROTO). */
export function expiryAt({ records }: Links, offset: number): string | null {
  const expiresMs = readId(records, offset + expiresAt);
  return expiresMs === 0 ? null : new Date(expiresMs).toISOString();
}

/** Ids are below 2^53, so that two halves make a number without a BigInt. */
function readId(records: Buffer, at: number): number {
  return records.readUInt32BE(at) * 0x1_0000_0000 + records.readUInt32BE(at + 4);
}

/**
 * The links of these protocols, all together and by protocol, sorted by UUID. Links of others are
 * left out: after a rollback there may be some.
 */
export function linksOfProtocols(
  packed: readonly PackedLinks[],
  nodeProtocolIds: readonly number[],
): { all: Links; of: (nodeProtocolId: number) => Links } {
  const records = Buffer.concat(packed);
  assert.equal(records.length % linkBytes, 0, 'links are packed whole');
  const sorted = sortedOffsets(records);
  const offsetsOf = new Map(nodeProtocolIds.map((id) => [id, new Uint32Array(sorted.length)]));
  const counts = new Map(nodeProtocolIds.map((id) => [id, 0]));
  const all = new Uint32Array(sorted.length);
  let served = 0;
  for (const offset of sorted) {
    const id = readId(records, offset + nodeProtocolAt);
    const offsets = offsetsOf.get(id);
    if (offsets === undefined) continue;
    const count = counts.get(id) ?? 0;
    offsets[count] = offset;
    counts.set(id, count + 1);
    all[served] = offset;
    served += 1;
  }
  return {
    all: { records, offsets: all.subarray(0, served) },
    of: (id) => ({ records, offsets: (offsetsOf.get(id) ?? all).subarray(0, counts.get(id) ?? 0) }),
  };
}

/**
 * The offsets of all records, sorted by UUID. A number holds the first bits of the UUID and, below
 * them, the place of its record: a typed array of numbers is sorted without calling back.
 */
function sortedOffsets(records: Buffer): Uint32Array {
  const count = records.length / linkBytes;
  const placeBits = Math.ceil(Math.log2(count + 1));
  const placeFactor = 2 ** placeBits;
  // A number is exact to 53 bits. Past two million links not all of the first 32 bits fit.
  const prefixDivisor = 2 ** Math.max(0, placeBits + 32 - 53);
  const keys = new Float64Array(count);
  for (let place = 0; place < count; place += 1) {
    const prefix = Math.floor(records.readUInt32BE(place * linkBytes) / prefixDivisor);
    keys[place] = prefix * placeFactor + place;
  }
  keys.sort();
  const offsets = new Uint32Array(count);
  let start = 0;
  let startPrefix = -1;
  for (let index = 0; index < count; index += 1) {
    const key = keys[index] as number;
    const prefix = Math.floor(key / placeFactor);
    offsets[index] = (key - prefix * placeFactor) * linkBytes;
    if (prefix === startPrefix) continue;
    sortWhole(records, offsets.subarray(start, index));
    start = index;
    startPrefix = prefix;
  }
  sortWhole(records, offsets.subarray(start));
  return offsets;
}

/** By all bytes of the UUID, those few whose first bits are the same. */
function sortWhole(records: Buffer, offsets: Uint32Array): void {
  if (offsets.length < 2) return;
  offsets.sort((left, right) => {
    return records.compare(records, right, right + uuidBytes, left, left + uuidBytes);
  });
}
