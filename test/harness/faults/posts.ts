import { sessionEventTypes, vpnProtocols } from '../../../src/contract/enums.ts';
import type { IngestKind } from '../simulator/ledger.ts';
import { integerIn, type Random } from '../simulator/random.ts';
import type { FaultNode, FaultWorld } from './world.ts';

/**
 * How a post ended. `unknown`: an attempt ended without an answer, so the post may be there once or not
 * at all. `undelivered`: Core turned every attempt away, so nothing may be there.
 */
export type Outcome = 'acked' | 'unknown' | 'undelivered';

/** What the harness remembers of a post: enough to check it by itself. */
export interface Post {
  /** Its number. Every row has it: node_protocol_id of usage, user_id of sessions, the tag of an outbound. */
  n: number;
  round: number;
  kind: IngestKind;
  nodeId: number;
  /** Rows that ClickHouse accepts. */
  rows: number;
  /** Rows that ClickHouse refuses. They belong into rejected_rows, if the others are in the table. */
  poisoned: number;
  bytesUp: number;
  bytesDown: number;
  /** What an outbound post adds to the counter that all posts of its node share. */
  shared: { bytesUp: number; bytesDown: number };
  outcome: Outcome;
}

/** The suite's ClickHouse refuses usage rows of this user: see `refusePoison` in servers.ts. */
export const poisonUserId = 4_000_000_000;

/** All outbound posts of a node add to this tag's counter. */
export const sharedTag = 'direct';
export const tagOf = (n: number): string => `r${n}`;

const rowsMax = 40;
const largeRows = 1_500;
const largeShare = 0.04;
/** Share of posts with rows of two months. These are two inserts. */
const twoMonthsShare = 0.15;
/** Share of posts with rows old enough for a late stream. If it is a usage post, it is two inserts. */
const lateShare = 0.1;
/** Share of usage posts with a poisoned row, in a round with poison. */
const poisonShare = 0.3;
const bytesMax = 1_000_000;
const dayMs = 86_400_000;
/** The ages of the old rows. */
const monthMs = 31 * dayMs;
const lateMs = 70 * dayMs;

interface BuiltPost {
  post: Post;
  path: string;
  body: Buffer;
}

/** Makes the next post of a node, with its number in every row. */
export function buildPost(
  kind: IngestKind,
  given: {
    n: number;
    round: number;
    node: FaultNode;
    world: FaultWorld;
    random: Random;
    poison: boolean;
  },
): BuiltPost {
  const { n, round, node, random } = given;
  const post: Post = {
    n,
    round,
    kind,
    nodeId: node.nodeId,
    rows: 0,
    poisoned: 0,
    bytesUp: 0,
    bytesDown: 0,
    shared: { bytesUp: 0, bytesDown: 0 },
    outcome: 'undelivered',
  };
  if (kind === 'usage') return { post, path: '/node/usage', body: usageBody(post, given) };
  if (kind === 'session') {
    return { post, path: '/node/session-events', body: sessionBody(post, random) };
  }
  return { post, path: '/node/outbound-usage', body: outboundBody(post, random) };
}

/** User ids count up from 1 in each post, so that the oracle sees a row that is there twice. */
function usageBody(
  post: Post,
  { world, random, poison }: { world: FaultWorld; random: Random; poison: boolean },
): Buffer {
  const { subscriptionIds } = world;
  post.rows = random() < largeShare ? largeRows : integerIn(random, 1, rowsMax);
  const ageMs = drawAgeMs(random);
  const nowMs = Date.now();
  const entries = Array.from({ length: post.rows }, (_, index) => {
    const bytesUp = integerIn(random, 0, bytesMax);
    const bytesDown = integerIn(random, 0, bytesMax);
    post.bytesUp += bytesUp;
    post.bytesDown += bytesDown;
    return {
      userId: index + 1,
      subscriptionId: subscriptionIds[integerIn(random, 0, subscriptionIds.length - 1)],
      nodeProtocolId: post.n,
      bytesUp,
      bytesDown,
      recordedAt: new Date(nowMs - (index % 2 === 0 ? ageMs : 0)).toISOString(),
    };
  });
  const first = entries[0];
  if (poison && random() < poisonShare && first !== undefined) {
    post.poisoned = 1;
    entries.splice(entries.length >> 1, 0, { ...first, userId: poisonUserId });
  }
  return Buffer.from(JSON.stringify({ entries }));
}

/** The age of every second row of a usage post, or of all rows of a session post. */
function drawAgeMs(random: Random): number {
  const drawn = random();
  if (drawn < twoMonthsShare) return monthMs;
  return drawn < twoMonthsShare + lateShare ? lateMs : 0;
}

/** Times count up by a millisecond, so that the oracle sees a row that is there twice. */
function sessionBody(post: Post, random: Random): Buffer {
  post.rows = integerIn(random, 1, rowsMax);
  const startMs = Date.now() - drawAgeMs(random);
  const events = Array.from({ length: post.rows }, (_, index) => ({
    userId: post.n,
    protocol: vpnProtocols[integerIn(random, 0, vpnProtocols.length - 1)],
    eventType: sessionEventTypes[index % 2],
    occurredAt: new Date(startMs + index).toISOString(),
    ipAddress: '198.51.100.9',
  }));
  return Buffer.from(JSON.stringify({ events }));
}

function outboundBody(post: Post, random: Random): Buffer {
  // At least 1, since the oracle finds the post by its own counter.
  const own = {
    bytesUp: integerIn(random, 1, bytesMax),
    bytesDown: integerIn(random, 1, bytesMax),
  };
  const shared = {
    bytesUp: integerIn(random, 0, bytesMax),
    bytesDown: integerIn(random, 0, bytesMax),
  };
  Object.assign(post, { rows: 1, ...own, shared });
  const items = [
    { tag: tagOf(post.n), ...own },
    { tag: sharedTag, ...shared },
  ];
  return Buffer.from(JSON.stringify({ items }));
}
