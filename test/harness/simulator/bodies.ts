import { addToCell, type Cells } from './ledger.ts';
import { integerIn, type Random } from './random.ts';
import { type FleetNode, ghostSubscriptionId, type Member } from './world.ts';

/** A post's body, and the sums that its rows have to add up to. */
export interface Built {
  body: Record<string, unknown>;
  rows: number;
  cells: Cells;
}

/** Share of entries without a subscription, as for the traffic of a removed link. */
const withoutSubscriptionShare = 0.01;
/** Share of entries with a subscription that does not exist. */
const ghostShare = 0.001;
/** Share of posts that are up to six weeks old, as from a node that was cut off. */
const lateShare = 0.02;
const lateDaysMax = 42;
const dayMs = 86_400_000;

/** Returns times that only grow, so that no two posts of a node have the same bytes by chance. */
export function createClock(nowMs: () => number): () => number {
  let lastMs = 0;
  return () => {
    lastMs = Math.max(lastMs + 1, nowMs());
    return lastMs;
  };
}

/** Usage of the node's active users, or exactly `entries` entries. */
export function buildUsage(
  node: FleetNode,
  random: Random,
  options: { atMs: number; entries: number | undefined; entriesMax: number },
): Built {
  const lateMs = random() < lateShare ? integerIn(random, 1, lateDaysMax) * dayMs : 0;
  const atMs = options.atMs - lateMs;
  const recordedAt = isoAt(random, atMs);
  const active = Math.ceil(node.members.length * (0.3 + 0.7 * random()));
  const count = Math.min(options.entries ?? active, options.entriesMax);
  const start = integerIn(random, 0, node.members.length - 1);
  const cells: Cells = new Map();
  const entries: Record<string, unknown>[] = [];
  for (let index = 0; index < count; index += 1) {
    const member = node.members[(start + index) % node.members.length] as Member;
    const nodeProtocolId = pickProtocol(node, random).id;
    const bytesUp = Math.floor(random() ** 3 * 50_000_000);
    const bytesDown = Math.floor(random() ** 3 * 2_000_000_000);
    const { given, stored } = pickSubscription(member, random);
    entries.push({
      userId: member.userId,
      ...given,
      nodeProtocolId,
      bytesUp,
      bytesDown,
      recordedAt,
    });
    addToCell(cells, stored, {
      rows: 1n,
      bytesUp: BigInt(bytesUp),
      bytesDown: BigInt(bytesDown),
      checksum: BigInt(Math.floor(atMs / 1_000) + member.userId + nodeProtocolId),
    });
  }
  return { body: { entries }, rows: count, cells };
}

function pickSubscription(
  member: Member,
  random: Random,
): { given: { subscriptionId?: number | null }; stored: number } {
  const dice = random();
  if (dice < withoutSubscriptionShare) {
    return {
      given: dice < withoutSubscriptionShare / 2 ? { subscriptionId: null } : {},
      stored: 0,
    };
  }
  const stored =
    dice < withoutSubscriptionShare + ghostShare ? ghostSubscriptionId : member.subscriptionId;
  return { given: { subscriptionId: stored }, stored };
}

function pickProtocol(node: FleetNode, random: Random): FleetNode['protocols'][number] {
  const picked = node.protocols[Math.floor(random() * node.protocols.length)];
  if (picked === undefined) throw new Error(`node ${node.nodeId} has no protocol`);
  return picked;
}

/** The time as agents write it: mostly with `Z`, sometimes with an offset. */
function isoAt(random: Random, atMs: number): string {
  if (random() < 0.9) return new Date(atMs).toISOString();
  return new Date(atMs + 3 * 3_600_000).toISOString().replace('Z', '+03:00');
}

/** Traffic by outbound tag. Core keeps only counters of it, so rows and checksum stay zero. */
export function buildOutbound(node: FleetNode, random: Random): Built {
  const cells: Cells = new Map();
  const items = node.outboundTags.map((tag) => {
    const bytesUp = Math.floor(random() ** 2 * 500_000_000);
    const bytesDown = Math.floor(random() ** 2 * 20_000_000_000);
    addToCell(cells, tag, {
      rows: 0n,
      bytesUp: BigInt(bytesUp),
      bytesDown: BigInt(bytesDown),
      checksum: 0n,
    });
    return { tag, bytesUp, bytesDown };
  });
  return { body: { items }, rows: items.length, cells };
}

const sessionEventsMax = 20;

/** Some members go online or offline. `online` remembers who is online, and is updated. */
export function buildSession(
  node: FleetNode,
  random: Random,
  options: { atMs: number; online: Set<number> },
): Built {
  const cells: Cells = new Map();
  const count = Math.min(node.members.length, integerIn(random, 1, sessionEventsMax));
  const start = integerIn(random, 0, node.members.length - 1);
  const events: Record<string, unknown>[] = [];
  for (let index = 0; index < count; index += 1) {
    const member = node.members[(start + index) % node.members.length] as Member;
    const wasOnline = options.online.delete(member.subscriptionId);
    if (!wasOnline) options.online.add(member.subscriptionId);
    const eventType = wasOnline ? 'OFFLINE' : 'ONLINE';
    const { protocol } = pickProtocol(node, random);
    events.push({
      userId: member.userId,
      protocol: random() < 0.2 ? protocol.toLowerCase() : protocol,
      eventType: random() < 0.1 ? eventType.toLowerCase() : eventType,
      occurredAt: isoAt(random, options.atMs),
      ...ipAddress(random),
    });
    addToCell(cells, `${protocol}/${eventType}`, {
      rows: 1n,
      bytesUp: 0n,
      bytesDown: 0n,
      checksum: BigInt(options.atMs + member.userId),
    });
  }
  return { body: { events }, rows: count, cells };
}

function ipAddress(random: Random): { ipAddress?: string } {
  const dice = random();
  if (dice < 0.2) return {};
  if (dice < 0.4) return { ipAddress: `2001:db8::${integerIn(random, 1, 65_535).toString(16)}` };
  return { ipAddress: `198.51.100.${integerIn(random, 1, 254)}` };
}
