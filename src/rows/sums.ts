import { ingestModule, inputStart } from './module.ts';
import { outboundRow, outboundRowLength } from './pack.ts';
import type { PayloadColumn, UsagePayload } from './segment-rows.ts';

/** What segments add to counters: four columns, one place a subscription, ids distinct. */
export interface TrafficSums {
  subscriptionIds: BigUint64Array;
  bytesUp: BigUint64Array;
  bytesDown: BigUint64Array;
  /** Usage rows that each sum is made of. */
  rows: BigUint64Array;
}

/** Adds usage rows up by subscription, over as many payloads as it is given. */
export interface UsageSums {
  /** Rows without a subscription count for nobody. */
  add(payload: UsagePayload): void;
  /** Subscriptions that have a sum. */
  readonly size: number;
  /** Rows added that have a subscription. */
  readonly rows: number;
  /** All sums in ascending order of id; one past 2^64-1 is that. */
  columns(): TrafficSums;
}

/** Subscriptions, bytes up, bytes down and rows (assembly/sums.ts), each of 64 bits. */
const sumColumns = 4;
const sumBytes = sumColumns * 8;
/** Subscriptions that there is room for at first. */
const capacityFirst = 4_096;

/**
 * Payloads come sorted by subscription, so the sums of each are a sorted list, and adding one is to
 * merge two lists (assembly/sums.ts): all that is read is read in order. Each time all sums are copied,
 * some milliseconds for a hundred thousand; a group has few payloads (group.ts). They stay in memory of
 * their own, since what is allocated anew for each payload makes V8 collect garbage all the time.
 */
export function createUsageSums(): UsageSums {
  let capacity = capacityFirst;
  let held = new BigUint64Array(capacity * sumColumns);
  let size = 0;
  let rows = 0;
  const column = (index: number): BigUint64Array =>
    held.subarray(index * capacity, index * capacity + size);
  return {
    add(payload) {
      const { exports, memory } = ingestModule();
      const at = placesFor(payload.rows, size);
      const bytes = memory(at.end);
      const { subscriptionId: id, bytesUp: up, bytesDown: down } = payload.columns;
      bytes.set(valuesOf(payload, id), at.ids);
      bytes.set(valuesOf(payload, up), at.up);
      bytes.set(valuesOf(payload, down), at.down);
      const words = new BigUint64Array(bytes.buffer);
      for (let index = 0; index < sumColumns; index += 1) {
        words.set(column(index), at.held / 8 + index * size);
      }
      const { ids, own } = at;
      const widths = [id.width, up.width, down.width] as const;
      const added = exports.sumRows(ids, at.up, at.down, ...widths, payload.rows, own);
      rows += exports.countedRows();
      const room = size + added;
      size = exports.mergeSums(at.held, size, own, added, payload.rows, at.merged);
      while (capacity < size) capacity *= 2;
      if (held.length < capacity * sumColumns) {
        held = new BigUint64Array(capacity * sumColumns);
      }
      for (let index = 0; index < sumColumns; index += 1) {
        const start = at.merged / 8 + index * room;
        column(index).set(words.subarray(start, start + size));
      }
    },
    get size() {
      return size;
    },
    get rows() {
      return rows;
    },
    columns: () => ({
      subscriptionIds: column(0),
      bytesUp: column(1),
      bytesDown: column(2),
      rows: column(3),
    }),
  };
}

/**
 * Addresses in the module's memory: three columns of the payload, its own sums, those held before, and
 * the merged ones, all aligned to eight bytes.
 */
function placesFor(rows: number, size: number) {
  const [ids, up, down] = [inputStart, inputStart + rows * 8, inputStart + rows * 16];
  const own = inputStart + rows * 24;
  const held = own + rows * sumBytes;
  const merged = held + size * sumBytes;
  return { ids, up, down, own, held, merged, end: merged + (size + rows) * sumBytes };
}

function valuesOf({ bytes, rows }: UsagePayload, { at, width }: PayloadColumn): Buffer {
  return bytes.subarray(at, at + rows * width);
}

/** Traffic to add to one outbound. */
export interface OutboundTraffic {
  nodeId: number;
  tag: string;
  bytesUp: bigint;
  bytesDown: bigint;
}

/** Adds packed outbound rows up by node and tag. */
export interface OutboundSums {
  add(block: Buffer): void;
  readonly size: number;
  /** All sums, sorted by node and tag. */
  list(): OutboundTraffic[];
}

export function createOutboundSums(): OutboundSums {
  const sums = new Map<string, OutboundTraffic>();
  return {
    add(block) {
      for (let at = 0; at < block.length; at += outboundRowLength(block, at)) {
        const nodeId = block.readUInt32LE(at + outboundRow.nodeId);
        const tagStart = at + outboundRow.tag + 2;
        const tag = block.toString('utf8', tagStart, tagStart + block.readUInt16LE(tagStart - 2));
        const bytesUp = block.readBigUInt64LE(at + outboundRow.bytesUp);
        const bytesDown = block.readBigUInt64LE(at + outboundRow.bytesDown);
        const key = `${nodeId}/${tag}`;
        const sum = sums.get(key);
        if (sum === undefined) sums.set(key, { nodeId, tag, bytesUp, bytesDown });
        else {
          sum.bytesUp += bytesUp;
          sum.bytesDown += bytesDown;
        }
      }
    },
    get size() {
      return sums.size;
    },
    list: () => [...sums.values()].sort((a, b) => a.nodeId - b.nodeId || (a.tag < b.tag ? -1 : 1)),
  };
}
