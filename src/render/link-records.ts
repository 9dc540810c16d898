import assert from 'node:assert/strict';

// A node may have 100,000 links. As objects they would cost Postgres' driver, the garbage collector
// and the renderer more than the rest of the configuration. So Postgres encodes each link as a record
// of fixed length, and the renderer writes the configuration from the records.

/** The records of some links, one after the other. */
export type LinkRecords = Buffer;

/**
 * A record has the 16 bytes of the UUID and then four 64-bit integers, most significant byte first:
 * the ids of the node protocol, the user and the subscription, and the expiry in milliseconds since
 * 1970. The expiry is 0 if the link has none, or if its protocol is not MTPROTO: no other
 * configuration names an expiry.
 */
export const linkRecordBytes = 48;
const uuidBytes = 16;
const nodeProtocolAt = uuidBytes;
const userAt = 24;
const subscriptionAt = 32;
const expiresAt = 40;

/** A record in SQL, from the tables l (subscription_links), s (subscriptions), p (node_protocols). */
export const linkRecordSql = `uuid_send(l.uuid) || int8send(l.node_protocol_id)
    || int8send(s.user_id) || int8send(s.id) || int8send(CASE WHEN p.protocol = 'MTPROTO'
      THEN coalesce(floor(extract(epoch FROM s.expires_at) * 1000)::bigint, 0) ELSE 0 END)`;

/** The offsets of some records, in the order of their UUIDs. */
export interface SortedLinks {
  records: LinkRecords;
  offsets: Uint32Array;
}

/** The UUID of the record at an offset, as text in lower case. */
export function uuidAt({ records }: SortedLinks, offset: number): string {
  const hex = records.toString('hex', offset, offset + uuidBytes);
  const parts = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)];
  return `${parts.join('-')}-${hex.slice(20)}`;
}

export function userIdAt({ records }: SortedLinks, offset: number): number {
  return readId(records, offset + userAt);
}

export function subscriptionIdAt({ records }: SortedLinks, offset: number): number {
  return readId(records, offset + subscriptionAt);
}

/** ISO 8601 in UTC. Null if the link never expires, or if its protocol is not MTPROTO. */
export function expiryAt({ records }: SortedLinks, offset: number): string | null {
  const expiresMs = readId(records, offset + expiresAt);
  return expiresMs === 0 ? null : new Date(expiresMs).toISOString();
}

/** Adds two halves, which needs no BigInt: ids are below 2^53. */
function readId(records: Buffer, at: number): number {
  return records.readUInt32BE(at) * 0x1_0000_0000 + records.readUInt32BE(at + 4);
}

/**
 * The links of these protocols sorted by UUID, all together and by protocol. Links of other protocols
 * are left out: after a rollback there may be some.
 */
export function linksOfProtocols(
  batches: readonly LinkRecords[],
  nodeProtocolIds: readonly number[],
): { all: SortedLinks; of: (nodeProtocolId: number) => SortedLinks } {
  const records = Buffer.concat(batches);
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
 * The offsets of all records, sorted by UUID. It sorts numbers, because a typed array of numbers needs no
 * callback. Each number has the first 32 bits of a UUID and, below them, the place of its record.
 */
function sortedOffsets(records: Buffer): Uint32Array {
  const count = records.length / linkRecordBytes;
  const placeBits = Math.ceil(Math.log2(count + 1));
  const placeFactor = 2 ** placeBits;
  // A number holds 53 bits. With more than two million links fewer than 32 bits of the UUID fit.
  const prefixDivisor = 2 ** Math.max(0, placeBits + 32 - 53);
  const keys = new Float64Array(count);
  for (let place = 0; place < count; place += 1) {
    const prefix = Math.floor(records.readUInt32BE(place * linkRecordBytes) / prefixDivisor);
    keys[place] = prefix * placeFactor + place;
  }
  keys.sort();
  const offsets = new Uint32Array(count);
  let start = 0;
  let startPrefix = -1;
  for (let index = 0; index < count; index += 1) {
    const key = keys[index] as number;
    const prefix = Math.floor(key / placeFactor);
    offsets[index] = (key - prefix * placeFactor) * linkRecordBytes;
    if (prefix === startPrefix) continue;
    sortWhole(records, offsets.subarray(start, index));
    start = index;
    startPrefix = prefix;
  }
  sortWhole(records, offsets.subarray(start));
  return offsets;
}

/** Sorts the few records whose first bits are equal by all bytes of the UUID. */
function sortWhole(records: Buffer, offsets: Uint32Array): void {
  if (offsets.length < 2) return;
  offsets.sort((left, right) => {
    return records.compare(records, right, right + uuidBytes, left, left + uuidBytes);
  });
}
