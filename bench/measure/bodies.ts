import assert from 'node:assert/strict';
import {
  createRandom,
  integerIn,
  type Random,
  shuffled,
} from '../../test/harness/simulator/random.ts';
import type { BenchWorld } from './world.ts';

/** One usage entry as the benches send it. Every number has a fixed count of digits. */
export interface SentEntry {
  userId: number;
  subscriptionId: number;
  nodeProtocolId: number;
  /** Eight digits. */
  bytesUp: number;
  /** Ten digits. */
  bytesDown: number;
  recordedAtMs: number;
}

/**
 * How a protocol writes entries, all of one length: Core's JSON, or what a peer takes. The sender changes
 * every entry of every request. It puts four random digits at each offset of `fours`, and two digits from
 * 00 to 59 at each offset of `sixties`. In a body's first entry the first two `fours` hold the request's
 * number instead, so that no body comes twice.
 */
export interface EntryFormat {
  prefix: string;
  separator: string;
  suffix: string;
  format: (entry: SentEntry) => string;
  fours: readonly number[];
  sixties: readonly number[];
}

/** Bodies of one length, and the places that the sender changes. */
export interface BodySet {
  bodies: Buffer[];
  entries: number;
  /** Offset of the first entry in a body, and from one entry to the next. */
  firstAt: number;
  stride: number;
  fours: readonly number[];
  sixties: readonly number[];
}

/** This process and the sender both hold all bodies in memory. */
const bodyBytesMax = 83_886_080;
const bodiesMax = 20_000;
/** Entries in a row with the same protocol, for every size of body. */
const entriesOfProtocol = 500;

/** An entry of the usual length. The formats find their offsets in its text. */
export const sampleEntry: SentEntry = {
  userId: 1_000_001,
  subscriptionId: 1_000_001,
  nodeProtocolId: 1_000_001,
  bytesUp: 10_000_000,
  bytesDown: 1_000_000_000,
  recordedAtMs: Date.UTC(2026, 0, 1),
};

/** Core's JSON, keys in the order of the contract. */
export const coreFormat: EntryFormat = {
  prefix: '{"entries":[',
  separator: ',',
  suffix: ']}',
  ...jsonEntries(
    ({ userId, subscriptionId, nodeProtocolId, bytesUp, bytesDown, recordedAtMs }) =>
      `{"userId":${userId},"subscriptionId":${subscriptionId},` +
      `"nodeProtocolId":${nodeProtocolId},"bytesUp":${bytesUp},` +
      `"bytesDown":${bytesDown},"recordedAt":"${new Date(recordedAtMs).toISOString()}"}`,
    { bytesUp: 'bytesUp', bytesDown: 'bytesDown', recordedAt: 'recordedAt' },
  ),
};

/** Entries of one JSON object each. `names` are the fields that the sender changes. */
export function jsonEntries(
  format: EntryFormat['format'],
  names: { bytesUp: string; bytesDown: string; recordedAt: string },
): Pick<EntryFormat, 'format' | 'fours' | 'sixties'> {
  const text = format(sampleEntry);
  const valueAt = (name: string): number => text.indexOf(`"${name}":`) + name.length + 3;
  // In "2026-01-01T00:00:00" the minutes come 15 characters after the quote, and the seconds 18.
  const minuteAt = valueAt(names.recordedAt) + 15;
  return {
    format,
    // Not the leading digit, which must not become a zero.
    fours: [valueAt(names.bytesUp) + 1, valueAt(names.bytesDown) + 1],
    sixties: [minuteAt, minuteAt + 3],
  };
}

/**
 * Bodies of `entries` entries. If they fit into 80 MB, they name every subscription about equally often. A
 * body names a subscription once, like a node's report of a minute, unless it has more entries than the
 * world has subscriptions. All entries of a body are of one protocol. Nodes and bodies take turns, so a
 * body always comes from the same node, or from the same few.
 *
 * Entries are recorded in the hour before `atMs`: the sender varies the minute and the second.
 */
export function createBodies(
  world: Pick<BenchWorld, 'userIds' | 'subscriptionIds' | 'nodeProtocolIds'>,
  options: { entries: number; seed: number; atMs: number; format?: EntryFormat },
): BodySet {
  const { entries, seed } = options;
  assert(entries > 0, 'a body has an entry');
  assert(world.subscriptionIds.length > 0, 'the world has a subscription');
  const format = options.format ?? coreFormat;
  const random = createRandom(seed);
  const order = shuffled(random, [...world.subscriptionIds.keys()]);
  const recordedAtMs = Math.floor(options.atMs / 3_600_000 - 1) * 3_600_000;
  let next = 0;
  const entry = (): string => {
    const { nodeProtocolIds } = world;
    const nodeProtocolId = nodeProtocolIds[
      Math.floor(next / entriesOfProtocol) % nodeProtocolIds.length
    ] as number;
    const member = order[next % order.length] as number;
    next += 1;
    return format.format({
      userId: world.userIds[member] as number,
      subscriptionId: world.subscriptionIds[member] as number,
      nodeProtocolId,
      bytesUp: integerIn(random, 10_000_000, 99_999_999),
      bytesDown: integerIn(random, 1_000_000_000, 9_999_999_999),
      recordedAtMs,
    });
  };
  const body = (): Buffer => {
    const texts = Array.from({ length: entries }, entry);
    return Buffer.from(`${format.prefix}${texts.join(format.separator)}${format.suffix}`);
  };
  const first = body();
  const count = bodyCount({
    wanted: Math.max(Math.ceil((2 * world.subscriptionIds.length) / entries), 16),
    most: Math.min(bodiesMax, Math.floor(bodyBytesMax / first.length)),
    nodes: world.nodeProtocolIds.length,
  });
  const bodies = [first, ...Array.from({ length: count - 1 }, body)];
  assert(
    bodies.every(({ length }) => length === first.length),
    'bodies are of one length',
  );
  const { prefix, separator, suffix } = format;
  return {
    bodies,
    entries,
    firstAt: prefix.length,
    stride: (first.length - prefix.length - suffix.length + separator.length) / entries,
    fours: format.fours,
    sixties: format.sixties,
  };
}

/**
 * Turns `body` into the request with this number, in place, as requests.lua does for wrk. Different
 * numbers under 10^8 give different bytes.
 */
export function numberBody(
  set: BodySet,
  body: Uint8Array,
  requestNumber: number,
  random: Random,
): void {
  const { firstAt, stride, sixties, entries } = set;
  const [fourA = 0, fourB = 0] = set.fours;
  const minutes = sixties.map(() => integerIn(random, 0, 59));
  for (let index = 0; index < entries; index += 1) {
    const entryAt = firstAt + index * stride;
    // One random number of 26 bits gives two of 13 bits, each from 0 to 8,191.
    const value = Math.floor(random() * 67_108_864);
    putFour(body, entryAt + fourA, value & 8_191);
    putFour(body, entryAt + fourB, value >>> 13);
    for (let which = 0; which < sixties.length; which += 1) {
      putTwo(body, entryAt + (sixties[which] as number), minutes[which] as number);
    }
  }
  putFour(body, firstAt + fourA, Math.floor(requestNumber / 10_000));
  putFour(body, firstAt + fourB, requestNumber % 10_000);
}

/** The digits of 0000 to 9999. Formatting each number would cost more than all other work. */
const fourDigits = Buffer.from(
  Array.from({ length: 10_000 }, (_, value) => String(value).padStart(4, '0')).join(''),
);

function putFour(body: Uint8Array, at: number, value: number): void {
  const from = value * 4;
  body[at] = fourDigits[from] as number;
  body[at + 1] = fourDigits[from + 1] as number;
  body[at + 2] = fourDigits[from + 2] as number;
  body[at + 3] = fourDigits[from + 3] as number;
}

function putTwo(body: Uint8Array, at: number, value: number): void {
  body[at] = fourDigits[value * 4 + 2] as number;
  body[at + 1] = fourDigits[value * 4 + 3] as number;
}

/** About `wanted` bodies: a count that the nodes share out evenly. */
export function bodyCount(given: { wanted: number; most: number; nodes: number }): number {
  const { wanted, most, nodes } = given;
  const enough = Math.max(1, Math.min(wanted, most));
  if (enough >= nodes) return Math.min(Math.ceil(enough / nodes), Math.floor(most / nodes)) * nodes;
  const divisors = Array.from({ length: most }, (_, index) => index + 1).filter(
    (count) => nodes % count === 0,
  );
  return divisors.find((count) => count >= enough) ?? divisors.at(-1) ?? 1;
}
