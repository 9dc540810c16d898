import { decodeBody } from '../../../src/accept/decode.ts';
import { ingestSchemas } from '../../../src/contract/node.ts';
import { packUsage, usageRow } from '../../../src/rows/pack.ts';
import { buildUsage } from '../../../test/harness/simulator/bodies.ts';
import { createRandom, integerIn, nodeSeed } from '../../../test/harness/simulator/random.ts';
import type { FleetNode } from '../../../test/harness/simulator/world.ts';

/** How rows are spread over time and over a fleet. */
export interface Shape {
  name: string;
  nodes: number;
  subscriptions: number;
  /** Nodes that carry one subscription. */
  nodesPerSubscription: number;
  /** Seconds between two posts of a node. */
  postSeconds: number;
  /** Distance between neighbouring ids. More than 1 makes the fleet a sample of a larger one. */
  idStep: number;
  /**
   * The fleet simulator makes the rows: some name no subscription or a deleted one, some posts are
   * late, and the protocol is random.
   */
  asFleet: boolean;
}

/** A worker seals one segment a stream and load interval, or as soon as one is full. */
const streams = 2;
const loadSeconds = 0.5;
const segmentRowsMax = 500_000;
/** 2026-11-01. All rows but those of late posts are of one month. */
const startMs = Date.UTC(2026, 10, 1);
/** Segment ids are about the milliseconds of the clock, as in Core (src/load/segment-ids.ts). */
const firstSegment = startMs - 86_400_000;

/**
 * Packed usage rows of a shape, in the order of their posts. A block ends with the post that brings it to
 * `blockRows` rows. Every row has the id of the segment that Core would have put it in. The same shape
 * gives the same rows.
 */
export function* usageBlocks(
  shape: Shape,
  rows: number,
  blockRows: number,
): Generator<Buffer, undefined> {
  const nodes = fleet(shape);
  const parts: Buffer[] = [];
  let pending = 0;
  let made = 0;
  for (const post of postsOf(nodes, shape)) {
    parts.push(post);
    pending += post.length / usageRow.length;
    made += post.length / usageRow.length;
    if (pending >= blockRows || made >= rows) {
      yield Buffer.concat(parts.splice(0));
      pending = 0;
    }
    if (made >= rows) return undefined;
  }
  return undefined;
}

function fleet(shape: Shape): FleetNode[] {
  const nodes: FleetNode[] = Array.from({ length: shape.nodes }, (_, index) => ({
    index,
    nodeId: 1 + index * shape.idStep,
    name: '',
    host: '',
    ip: '',
    region: '',
    code: '',
    // Every third node has a second protocol. Ids are those that createWorld would give.
    protocols: [
      { id: 1 + index * shape.idStep, protocol: 'VLESS' as const },
      ...(index % 3 === 0
        ? [{ id: 1 + shape.nodes * shape.idStep + index, protocol: 'MTPROTO' as const }]
        : []),
    ],
    outboundTags: [],
    members: [],
  }));
  const stride = Math.max(1, Math.floor(shape.nodes / shape.nodesPerSubscription));
  for (let index = 0; index < shape.subscriptions; index += 1) {
    const id = 1 + index * shape.idStep;
    for (let copy = 0; copy < shape.nodesPerSubscription; copy += 1) {
      const node = nodes[(index + copy * stride) % nodes.length] as FleetNode;
      node.members.push({ userId: id, subscriptionId: id, uuids: [] });
    }
  }
  return nodes.filter((node) => node.members.length > 0);
}

/** One post after another, in order of time. Each row has its segment's id. */
function* postsOf(nodes: readonly FleetNode[], shape: Shape): Generator<Buffer, undefined> {
  const random = createRandom(nodeSeed(1, shape.nodes));
  const periodMs = shape.postSeconds * 1_000;
  const schemas = ingestSchemas({ entriesMax: 10_000, nowMs: () => startMs + 40 * 86_400_000 });
  const offsets = nodes.map((node) => ({ node, offsetMs: Math.floor(random() * periodMs) }));
  offsets.sort((a, b) => a.offsetMs - b.offsetMs);
  let segment = firstSegment;
  const current = Array.from({ length: streams }, () => ({ segment: 0, rows: 0, untilMs: 0 }));
  for (let turn = 0; ; turn += 1) {
    for (const { node, offsetMs } of offsets) {
      const atMs = startMs + turn * periodMs + offsetMs + integerIn(random, 0, 200);
      const block = shape.asFleet
        ? packFleetPost(node, random, atMs, schemas)
        : packMinute(node, random, atMs);
      const stream = current[node.nodeId % streams] as (typeof current)[number];
      stream.rows += block.length / usageRow.length;
      if (atMs >= stream.untilMs || stream.rows > segmentRowsMax) {
        segment += 1;
        Object.assign(stream, { segment, rows: 0, untilMs: atMs + loadSeconds * 1_000 });
      }
      for (let at = usageRow.segment; at < block.length; at += usageRow.length) {
        block.writeBigUInt64LE(BigInt(stream.segment), at);
      }
      yield block;
    }
  }
}

function packFleetPost(
  node: FleetNode,
  random: () => number,
  atMs: number,
  schemas: ReturnType<typeof ingestSchemas>,
): Buffer {
  const built = buildUsage(node, random, { atMs, entries: undefined, entriesMax: 10_000 });
  const { entries } = decodeBody(schemas.usage, Buffer.from(JSON.stringify(built.body)));
  return packUsage(node.nodeId, entries);
}

/** Share of a node's subscriptions with traffic in a minute. */
const activeShare = 0.5;
/** Share of these that used the node's second protocol too. */
const secondProtocolShare = 0.3;

/** A row for each active subscription and protocol, all of the same second. */
function packMinute(node: FleetNode, random: () => number, atMs: number): Buffer {
  const entries = [];
  for (const { userId, subscriptionId } of node.members) {
    if (random() >= activeShare) continue;
    for (const [index, protocol] of node.protocols.entries()) {
      if (index > 0 && random() >= secondProtocolShare) continue;
      entries.push({
        userId,
        subscriptionId,
        nodeProtocolId: protocol.id,
        bytesUp: Math.floor(random() ** 3 * 50_000_000),
        bytesDown: Math.floor(random() ** 3 * 2_000_000_000),
        recordedAt: atMs,
      });
    }
  }
  return packUsage(node.nodeId, entries);
}
