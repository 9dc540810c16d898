import { outboundRow, outboundRowLength } from './pack.ts';
import type { PayloadColumn, UsagePayload } from './segment-rows.ts';
import { mergeUsage, type SumColumns, sumColumns } from './wasm.ts';

/**
 * What segments add to counters: four columns with one place for each subscription. No id comes
 * twice.
 */
export interface TrafficSums {
  subscriptionIds: BigUint64Array;
  bytesUp: BigUint64Array;
  bytesDown: BigUint64Array;
  /** How many usage rows each sum is made of. */
  rows: BigUint64Array;
}

/** The sums of usage rows by subscription, over all payloads that were added. */
interface UsageSums {
  /** A row without a subscription adds to no sum. */
  add(payload: UsagePayload): void;
  /** How many subscriptions have a sum. */
  readonly size: number;
  /** How many of the rows that were added have a subscription. */
  readonly rows: number;
  /** All sums in ascending order of id. A sum past 2^64-1 stays at that number. */
  columns(): TrafficSums;
}

/** How many subscriptions there is room for at first. */
const capacityFirst = 4_096;

/**
 * A payload is sorted by subscription, so its sums are a sorted list. Adding it merges two lists
 * (assembly/sums.ts), which reads all memory in order. Each merge copies all sums: some milliseconds
 * for a hundred thousand, and a batch has few payloads. The sums keep one array and double it,
 * because an array for each payload would make V8 collect garbage all the time.
 */
export function createUsageSums(): UsageSums {
  let capacity = capacityFirst;
  let held = new BigUint64Array(capacity * sumColumns);
  let size = 0;
  let rows = 0;
  const column = (index: number): BigUint64Array =>
    held.subarray(index * capacity, index * capacity + size);
  const columns = (): SumColumns => [column(0), column(1), column(2), column(3)];
  const roomFor = (mergedSize: number): SumColumns => {
    size = mergedSize;
    while (capacity < size) capacity *= 2;
    if (held.length < capacity * sumColumns) held = new BigUint64Array(capacity * sumColumns);
    return columns();
  };
  return {
    add(payload) {
      const { subscriptionId, bytesUp, bytesDown } = payload.columns;
      const given = {
        rows: payload.rows,
        subscriptionIds: numbersOf(payload, subscriptionId),
        bytesUp: numbersOf(payload, bytesUp),
        bytesDown: numbersOf(payload, bytesDown),
      };
      rows += mergeUsage(given, columns(), roomFor);
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

function numbersOf({ bytes, rows }: UsagePayload, { at, width }: PayloadColumn) {
  return { bytes: bytes.subarray(at, at + rows * width), width };
}

/** Traffic to add to one outbound. */
export interface OutboundTraffic {
  nodeId: number;
  tag: string;
  bytesUp: bigint;
  bytesDown: bigint;
}

/** The sums of outbound rows by node and tag. */
interface OutboundSums {
  add(blocks: Buffer): void;
  readonly size: number;
  /** All sums, sorted by node and tag. */
  list(): OutboundTraffic[];
}

export function createOutboundSums(): OutboundSums {
  const sums = new Map<string, OutboundTraffic>();
  return {
    add(blocks) {
      for (let at = 0; at < blocks.length; at += outboundRowLength(blocks, at)) {
        const nodeId = blocks.readUInt32LE(at + outboundRow.nodeId);
        const tagStart = at + outboundRow.tag + 2;
        const tag = blocks.toString('utf8', tagStart, tagStart + blocks.readUInt16LE(tagStart - 2));
        const bytesUp = blocks.readBigUInt64LE(at + outboundRow.bytesUp);
        const bytesDown = blocks.readBigUInt64LE(at + outboundRow.bytesDown);
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
