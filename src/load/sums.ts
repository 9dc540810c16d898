import { outboundRow, outboundRowLength, two32, usageRow, viewOf } from '../ingest/pack.ts';
import type { OutboundTraffic } from '../nodes/outbound-traffic.ts';
import type { TrafficSums } from '../subscriptions/settle-counters.ts';

/** Adds packed usage rows up by subscription, over as many blocks as it is given. */
export interface UsageSums {
  /** Rows without a subscription count for nobody. */
  add(block: Buffer): void;
  /** Subscriptions that have a sum. */
  readonly size: number;
  /** Rows added that have a subscription. */
  readonly rows: number;
  /** All sums in ascending order of id; one past 2^64-1 is that. */
  columns(): TrafficSums;
}

/** Words of a cell: an id, two sums and a count of rows. Eight of them are half a cache line. */
const cell = {
  idLow: 0,
  idHigh: 1,
  upLow: 2,
  upHigh: 3,
  downLow: 4,
  downHigh: 5,
  rows: 6,
  words: 8,
} as const;
const cellsFirst = 1_024;

/** An open-addressing table of cells. An id of 0 marks a free one. */
interface Table {
  words: Uint32Array;
  /** Number of cells, a power of two, less one. */
  mask: number;
}

function createTable(cells: number): Table {
  return { words: new Uint32Array(cells * cell.words), mask: cells - 1 };
}

/** First word of the cell that holds the id, or of the free one where it belongs. */
function find({ words, mask }: Table, low: number, high: number): number {
  // Ids are dense or nearly so; the multiplier spreads them, and its high bits are the good ones.
  let place = Math.imul(low ^ high, 0x9e37_79b1) >>> 8;
  for (;;) {
    const at = (place & mask) * cell.words;
    const heldLow = words[at + cell.idLow] ?? 0;
    const heldHigh = words[at + cell.idHigh] ?? 0;
    if (heldLow === low && heldHigh === high) return at;
    if (heldLow === 0 && heldHigh === 0) return at;
    place += 1;
  }
}

function doubled(table: Table): Table {
  const larger = createTable((table.mask + 1) * 2);
  const { words } = table;
  for (let from = 0; from < words.length; from += cell.words) {
    const low = words[from + cell.idLow] ?? 0;
    const high = words[from + cell.idHigh] ?? 0;
    if (low === 0 && high === 0) continue;
    larger.words.set(words.subarray(from, from + cell.words), find(larger, low, high));
  }
  return larger;
}

/** Adds to the 64-bit sum at `at`, which stops at 2^64-1. */
function add(words: Uint32Array, at: number, low: number, high: number): void {
  const lowSum = (words[at] ?? 0) + low;
  const highSum = (words[at + 1] ?? 0) + high + (lowSum >= two32 ? 1 : 0);
  const fits = highSum < two32;
  words[at] = fits ? lowSum : 0xffff_ffff;
  words[at + 1] = fits ? highSum : 0xffff_ffff;
}

/** A table in which so many ids take at most half of the cells. */
function tableFor(ids: number): Table {
  let cells = cellsFirst;
  while (ids * 2 >= cells) cells *= 2;
  return createTable(cells);
}

/**
 * No object a row or a subscription, so that the garbage collector has nothing to do with the
 * millions of rows that pass here; what is left to wait for is memory, one cache line a row. Where
 * there will be about `expected` subscriptions the table need not grow to that, copying itself each
 * time it doubles.
 */
export function createUsageSums(expected = 0): UsageSums {
  let table = tableFor(expected);
  let size = 0;
  let rows = 0;
  return {
    add(block) {
      const view = viewOf(block);
      let [at, lastLow, lastHigh] = [0, 0, 0];
      for (let row = 0; row < block.length; row += usageRow.length) {
        const idLow = view.getUint32(row + usageRow.subscriptionId, true);
        const idHigh = view.getUint32(row + usageRow.subscriptionId + 4, true);
        if (idLow === 0 && idHigh === 0) continue;
        // Rows come sorted by subscription.
        if (idLow !== lastLow || idHigh !== lastHigh) at = find(table, idLow, idHigh);
        lastLow = idLow;
        lastHigh = idHigh;
        const { words } = table;
        const up = row + usageRow.bytesUp;
        const down = row + usageRow.bytesDown;
        add(words, at + cell.upLow, view.getUint32(up, true), view.getUint32(up + 4, true));
        add(words, at + cell.downLow, view.getUint32(down, true), view.getUint32(down + 4, true));
        words[at + cell.rows] = (words[at + cell.rows] ?? 0) + 1;
        rows += 1;
        if (words[at + cell.rows] !== 1) continue;
        words[at + cell.idLow] = idLow;
        words[at + cell.idHigh] = idHigh;
        size += 1;
        if (size * 2 <= table.mask) continue;
        table = doubled(table);
        lastLow = 0;
        lastHigh = 0;
      }
    },
    get size() {
      return size;
    },
    get rows() {
      return rows;
    },
    columns: () => columnsOf(table, size),
  };
}

function columnsOf(table: Table, size: number): TrafficSums {
  const { words } = table;
  const ids = new Float64Array(size);
  let count = 0;
  for (let at = 0; at < words.length; at += cell.words) {
    const id = (words[at + cell.idLow] ?? 0) + (words[at + cell.idHigh] ?? 0) * two32;
    if (id === 0) continue;
    ids[count] = id;
    count += 1;
  }
  ids.sort();
  const places = Uint32Array.from(ids, (id) => find(table, id % two32, Math.floor(id / two32)));
  const column = (first: number, wide: boolean): BigUint64Array => {
    const values = new BigUint64Array(size);
    const halves = new Uint32Array(values.buffer);
    for (let place = 0; place < size; place += 1) {
      const at = (places[place] ?? 0) + first;
      halves[place * 2] = words[at] ?? 0;
      if (wide) halves[place * 2 + 1] = words[at + 1] ?? 0;
    }
    return values;
  };
  return {
    subscriptionIds: column(cell.idLow, true),
    bytesUp: column(cell.upLow, true),
    bytesDown: column(cell.downLow, true),
    rows: column(cell.rows, false),
  };
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
