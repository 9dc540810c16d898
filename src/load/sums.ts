import { outboundRow, outboundRowLength, usageRow } from '../ingest/pack.ts';

const two32 = 4_294_967_296n;

/** What a segment adds to each subscription's counters, in ascending order of id. */
export interface SubscriptionSums {
  subscriptionIds: number[];
  bytesUp: bigint[];
  bytesDown: bigint[];
  /** Rows that each subscription has in the segment. */
  rows: number[];
}

/**
 * Sums as two halves of 32 bits: a segment has under 2^20 rows, so neither half passes 2^53 and
 * plain numbers stay exact where one of them would not.
 */
interface Halves {
  upLow: number;
  upHigh: number;
  downLow: number;
  downHigh: number;
  rows: number;
}

/** Sums packed usage rows by subscription; rows without one count for nobody. */
export function sumUsage(block: Buffer): SubscriptionSums {
  const sums = new Map<number, Halves>();
  for (let at = 0; at < block.length; at += usageRow.length) {
    const id =
      block.readUInt32LE(at + usageRow.subscriptionId) +
      block.readUInt32LE(at + usageRow.subscriptionId + 4) * 4_294_967_296;
    if (id === 0) continue;
    let sum = sums.get(id);
    if (sum === undefined) {
      sum = { upLow: 0, upHigh: 0, downLow: 0, downHigh: 0, rows: 0 };
      sums.set(id, sum);
    }
    sum.upLow += block.readUInt32LE(at + usageRow.bytesUp);
    sum.upHigh += block.readUInt32LE(at + usageRow.bytesUp + 4);
    sum.downLow += block.readUInt32LE(at + usageRow.bytesDown);
    sum.downHigh += block.readUInt32LE(at + usageRow.bytesDown + 4);
    sum.rows += 1;
  }
  const sorted = [...sums].sort(([a], [b]) => a - b);
  return {
    subscriptionIds: sorted.map(([id]) => id),
    bytesUp: sorted.map(([, sum]) => BigInt(sum.upHigh) * two32 + BigInt(sum.upLow)),
    bytesDown: sorted.map(([, sum]) => BigInt(sum.downHigh) * two32 + BigInt(sum.downLow)),
    rows: sorted.map(([, sum]) => sum.rows),
  };
}

/** What a segment adds to one outbound. */
export interface OutboundSum {
  nodeId: number;
  tag: string;
  bytesUp: bigint;
  bytesDown: bigint;
}

/** Sums packed outbound rows by node and tag, sorted by both. */
export function sumOutbounds(block: Buffer): OutboundSum[] {
  const sums = new Map<string, OutboundSum>();
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
  return [...sums.values()].sort((a, b) => a.nodeId - b.nodeId || (a.tag < b.tag ? -1 : 1));
}
