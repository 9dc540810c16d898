import type { VpnProtocol } from '../../src/contract/enums.ts';
import type { NodeConfig } from '../../src/contract/node-config.ts';
import type { IngestPost, OutboundBody, SessionsBody, UsageBody } from './client.ts';
import type { Baseline } from './ledger.ts';
import type { Counters } from './xray-api.ts';
import { blockedTag } from './xray-config.ts';

export interface Reading {
  proxyId: string;
  counters: Counters;
  /** By UUID: every link that this process has had since it started. */
  links: ReadonlyMap<string, Link>;
  /**
   * By UUID: the addresses that open sessions come from. Xray leaves out loopback, and an Xray before
   * 26.1.13 says nothing.
   */
  online: ReadonlyMap<string, readonly string[]>;
}

export interface Link {
  userId: number;
  subscriptionId: number | null;
  nodeProtocolId: number;
  protocol: VpnProtocol;
}

/** Half of what Core takes in one body by default. */
const entriesMax = 5_000;

const protocols: Record<string, VpnProtocol> = {
  vless: 'VLESS',
  vmess: 'VMESS',
  trojan: 'TROJAN',
  shadowsocks: 'SHADOWSOCKS',
  hysteria: 'HYSTERIA2',
};

/**
 * Turns what happened between the baseline and a reading into posts for Core, and returns the next
 * baseline. Pure. Without a reading (no proxy runs) users can only go offline.
 *
 * A user is online on a protocol while Xray has an open session of it, or while its counters move: Xray
 * does not list who comes from loopback. The user is offline after `restMs` of neither, because apps open
 * and close connections all the time.
 */
export function account(
  before: Baseline,
  reading: Reading | undefined,
  time: { nowMs: number; restMs: number },
): { posts: IngestPost[]; baseline: Baseline } {
  const online = { ...before.online };
  const events: SessionsBody['events'] = [];
  const { usage, items } = reading === undefined ? nothing : moved(before, reading);
  const recordedAt = new Date(time.nowMs).toISOString();
  for (const [link, address] of active(usage, reading)) {
    const who = `${link.userId} ${link.protocol}`;
    if (online[who] === undefined) events.push(event(who, 'ONLINE', time.nowMs, address));
    online[who] = time.nowMs;
  }
  for (const [who, movedAtMs] of Object.entries(online)) {
    // The clock was ahead then, and has been set back. The user has rested since now at the latest.
    if (movedAtMs > time.nowMs) online[who] = time.nowMs;
    if (time.nowMs - movedAtMs < time.restMs) continue;
    events.push(event(who, 'OFFLINE', movedAtMs));
    delete online[who];
  }
  const entries: UsageBody['entries'] = usage.map(({ link, bytesUp, bytesDown }) => ({
    userId: link.userId,
    subscriptionId: link.subscriptionId,
    nodeProtocolId: link.nodeProtocolId,
    bytesUp,
    bytesDown,
    recordedAt,
  }));
  return {
    posts: [
      ...inParts(entries).map(
        (part) => ({ path: '/node/usage', body: { entries: part } }) as const,
      ),
      ...inParts(items).map(
        (part) => ({ path: '/node/outbound-usage', body: { items: part } }) as const,
      ),
      ...inParts(events).map(
        (part) => ({ path: '/node/session-events', body: { events: part } }) as const,
      ),
    ],
    baseline: {
      proxyId: reading?.proxyId ?? before.proxyId,
      counters: reading?.counters ?? before.counters,
      online,
    },
  };
}

const nothing: ReturnType<typeof moved> = { usage: [], items: [] };

function moved(before: Baseline, reading: Reading) {
  const base: Counters = before.proxyId === reading.proxyId ? before.counters : {};
  const since = (name: string): number => {
    const value = reading.counters[name] ?? 0;
    const known = base[name] ?? 0;
    // A lower value means that another program has reset the counter, so it counts from zero again.
    return value < known ? value : value - known;
  };
  const bytesOf = (owner: string) => ({
    bytesUp: since(`${owner}>>>traffic>>>uplink`),
    bytesDown: since(`${owner}>>>traffic>>>downlink`),
  });
  const usage: { link: Link; bytesUp: number; bytesDown: number }[] = [];
  const items: OutboundBody['items'] = [];
  for (const owner of ownersIn(reading.counters)) {
    const bytes = bytesOf(owner);
    if (bytes.bytesUp + bytes.bytesDown === 0) continue;
    const name = owner.slice(owner.indexOf('>>>') + 3);
    if (owner.startsWith('outbound')) {
      if (name !== blockedTag) items.push({ tag: name, ...bytes });
      continue;
    }
    const link = reading.links.get(name);
    if (link !== undefined) usage.push({ link, ...bytes });
  }
  return { usage, items };
}

/** `user>>>UUID` and `outbound>>>TAG`, each once. */
function ownersIn(counters: Counters): Set<string> {
  const owners = new Set<string>();
  for (const name of Object.keys(counters)) {
    const end = name.lastIndexOf('>>>traffic>>>');
    if (end > 0 && /^(user|outbound)>>>/.test(name)) owners.add(name.slice(0, end));
  }
  return owners;
}

/** The links that are online now, each with the address that it comes from if Xray says so. */
function* active(
  usage: readonly { link: Link }[],
  reading: Reading | undefined,
): Generator<[Link, string | undefined]> {
  for (const [uuid, addresses] of reading?.online ?? []) {
    const link = reading?.links.get(uuid);
    if (link !== undefined) yield [link, addresses[0]?.replace(/^\[|\]$/g, '')];
  }
  for (const { link } of usage) yield [link, undefined];
}

/** The links of a configuration. Each is in one inbound, and the inbound's tag has the protocol's id. */
export function linksOf(config: NodeConfig): Map<string, Link> {
  const links = new Map<string, Link>();
  for (const inbound of config.services.xray?.inbounds ?? []) {
    const nodeProtocolId = Number(/^in-(\d+)$/.exec(inbound.tag)?.[1]);
    const protocol = protocols[inbound.protocol];
    if (!Number.isSafeInteger(nodeProtocolId) || protocol === undefined) continue;
    const settings = inbound.settings as { clients?: { email?: string }[] };
    for (const { email } of settings.clients ?? []) {
      const client = email === undefined ? undefined : config.clientMap[email];
      if (email === undefined || client === undefined) continue;
      links.set(email, { ...client, nodeProtocolId, protocol });
    }
  }
  return links;
}

function event(
  who: string,
  eventType: 'ONLINE' | 'OFFLINE',
  atMs: number,
  ipAddress?: string,
): SessionsBody['events'][number] {
  const [userId, protocol = ''] = who.split(' ');
  return {
    userId: Number(userId),
    protocol,
    eventType,
    occurredAt: new Date(atMs).toISOString(),
    ...(ipAddress === undefined ? {} : { ipAddress }),
  };
}

function inParts<T>(all: readonly T[]): T[][] {
  const parts: T[][] = [];
  for (let from = 0; from < all.length; from += entriesMax) {
    parts.push(all.slice(from, from + entriesMax));
  }
  return parts;
}
