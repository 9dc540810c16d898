import type pg from 'pg';
import { CoreError } from '../errors.ts';
import { apiPort } from '../protocols/api-port.ts';
import { defaultOutboundTag, type Outbound } from '../protocols/outbound/outbound.ts';
import { inboundTagsOf, referencesOf } from '../protocols/outbound/references.ts';
import { rawListeners } from '../protocols/raw-listeners.ts';
import type { XraySettings } from '../protocols/routing/xray-settings.ts';
import { type Listener, rawCollision, rawCollisionOf } from './port-transports.ts';
import type { RoutingRule } from './rule-schema.ts';

// Outbounds, rules, balancers and inbounds name each other by tags. Xray refuses a configuration with some names
// that are missing; with others it starts and drops traffic, or a rule never matches. Core refuses all of them.

/** A protocol of a node, with what messages call it. */
export type NamedListener = Listener & { called: string };

/** What a node would have after a change. */
export interface NodeParts {
  /** Tags of the inbounds of its protocols: `in-` and the id. Undefined if they are not known yet. */
  inboundTags: ReadonlySet<string> | undefined;
  /** Where its protocols listen. */
  listeners: readonly NamedListener[];
  outbounds: readonly Omit<Outbound, 'protocol'>[] & readonly { protocol: string }[];
  rules: readonly RoutingRule[];
  xray: XraySettings;
}

export interface ReferenceFault {
  /** The part that names what is missing, and its place in the list. */
  part: 'outbounds' | 'rules' | 'xray';
  index?: number;
  /** Begins with the part's name: `Rule 2 names …`. */
  message: string;
}

/** Every name of a node's parts that the node does not have. */
export function referenceFaults(parts: NodeParts): ReferenceFault[] {
  const raw = rawTags(parts.xray);
  const configured = parts.outbounds.map((one) => one.tag);
  const outbounds = [
    ...(configured.length === 0 ? [defaultOutboundTag] : configured),
    ...raw.outbounds,
  ];
  const balancers = [...(parts.xray.balancers ?? []).map((one) => one.tag), ...raw.balancers];
  return [
    ...outboundFaults(parts, outbounds),
    ...ruleFaults(parts, { outbounds, balancers }),
    ...balancerFaults(parts.xray, outbounds, balancers),
    ...observatoryFaults(parts.xray, outbounds),
    ...twice(outbounds, 'outbound'),
    ...rawInboundFaults(parts),
  ];
}

/** Inbounds of `raw` that share a tag, a port or a unix socket with each other or with a protocol. */
function rawInboundFaults({ xray, listeners }: NodeParts): ReferenceFault[] {
  const raw = rawListeners(xray.raw);
  const faults = twice(rawTags(xray).inbounds, 'inbound');
  const taken = (tag: string, place: string, by: string): unknown =>
    faults.push({ part: 'xray', message: `inbound ${tag} of raw takes ${place}, which ${by} has` });
  for (const [index, one] of raw.entries()) {
    for (const protocol of listeners) {
      const place = rawCollisionOf(one, protocol);
      if (place !== undefined) taken(one.tag, place, protocol.called);
    }
    for (const other of raw.slice(0, index)) {
      const place = rawCollision(one, other);
      if (place !== undefined) taken(one.tag, place, `inbound ${other.tag} of raw`);
    }
  }
  if (raw.length > 0 && apiPort(listeners, raw) === undefined) {
    faults.push({ part: 'xray', message: 'the inbounds of raw leave no port for the api of Xray' });
  }
  return faults;
}

/**
 * Checks all references of a node. Every change of its protocols, outbounds, rules or Xray settings ends with
 * this check, in the transaction that holds the node.
 * @throws CoreError INVALID_ARGUMENT naming the parts at fault.
 */
export async function requireReferences(client: pg.PoolClient, nodeId: number): Promise<void> {
  const faults = referenceFaults(await readParts(client, nodeId));
  if (faults.length === 0) return;
  throw new CoreError(
    'INVALID_ARGUMENT',
    `Node ${nodeId}: ${faults.map((one) => one.message).join('; ')}`,
  );
}

async function readParts(client: pg.PoolClient, nodeId: number): Promise<NodeParts> {
  const protocols = await client.query<Listener & { id: number }>(
    'SELECT id, protocol, port, settings FROM node_protocols WHERE node_id = $1 ORDER BY id',
    [nodeId],
  );
  const outbounds = await client.query<NodeParts['outbounds'][number] & { options: object }>(
    `SELECT tag, protocol, settings, options FROM node_outbounds
     WHERE node_id = $1 AND configured ORDER BY position, tag COLLATE "C"`,
    [nodeId],
  );
  const rules = await client.query<{ rule: RoutingRule }>(
    'SELECT rule FROM routing_rules WHERE node_id = $1 ORDER BY position',
    [nodeId],
  );
  const nodes = await client.query<{ xray: XraySettings }>(
    'SELECT xray_settings AS xray FROM nodes WHERE id = $1',
    [nodeId],
  );
  return {
    inboundTags: new Set(protocols.rows.map(({ id }) => `in-${id}`)),
    listeners: protocols.rows.map(({ id, ...row }) => ({
      ...row,
      called: `protocol ${id} (${row.protocol})`,
    })),
    outbounds: outbounds.rows.map(({ options, ...one }) => ({ ...one, ...options })),
    rules: rules.rows.map((row) => row.rule),
    xray: nodes.rows[0]?.xray ?? {},
  };
}

interface Tags {
  inbounds: string[];
  outbounds: string[];
  balancers: string[];
}

function rawTags({ raw }: XraySettings): Tags {
  const tagsOf = (list: unknown): string[] =>
    Array.isArray(list) ? list.map((one: { tag?: unknown }) => String(one.tag)) : [];
  const routing = (raw?.['routing'] ?? {}) as Record<string, unknown>;
  return {
    inbounds: tagsOf(raw?.['inbounds']),
    outbounds: tagsOf(raw?.['outbounds']),
    balancers: tagsOf(routing['balancers']),
  };
}

function outboundFaults(parts: NodeParts, tags: readonly string[]): ReferenceFault[] {
  const faults: ReferenceFault[] = [];
  const next = new Map<string, string[]>();
  for (const [index, outbound] of parts.outbounds.entries()) {
    const references = referencesOf(outbound as Outbound);
    next.set(
      outbound.tag,
      references.map((one) => one.tag),
    );
    for (const { path, tag } of references) {
      if (tags.includes(tag)) continue;
      const message = `outbound ${outbound.tag} names the outbound ${tag} (${path}), which the node does not have; ${has(tags)}`;
      faults.push({ part: 'outbounds', index, message });
    }
  }
  for (const [index, { tag }] of parts.outbounds.entries()) {
    if (!reaches(next, tag)) continue;
    const message = `outbound ${tag} connects through itself, by proxySettings or dialerProxy`;
    faults.push({ part: 'outbounds', index, message });
  }
  return faults;
}

/** Whether the way from an outbound through those that it names comes back to it. */
function reaches(next: ReadonlyMap<string, readonly string[]>, start: string): boolean {
  const seen = new Set<string>();
  const pending = [...(next.get(start) ?? [])];
  for (let tag = pending.pop(); tag !== undefined; tag = pending.pop()) {
    if (tag === start) return true;
    if (seen.has(tag)) continue;
    seen.add(tag);
    pending.push(...(next.get(tag) ?? []));
  }
  return false;
}

function ruleFaults(
  parts: NodeParts,
  tags: Pick<Tags, 'outbounds' | 'balancers'>,
): ReferenceFault[] {
  const known =
    parts.inboundTags && new Set([...parts.inboundTags, ...inboundsBesideProtocols(parts)]);
  return parts.rules.flatMap((rule, index) => {
    const faults: ReferenceFault[] = [];
    const missing = (what: string, tag: unknown, list: readonly string[]): void => {
      const message = `rule ${index + 1} names the ${what} ${tag}, which the node does not have; ${has(list)}`;
      faults.push({ part: 'rules', index, message });
    };
    const { outboundTag, balancerTag, inboundTag } = rule as {
      outboundTag?: string;
      balancerTag?: string;
      inboundTag?: string[];
    };
    if (outboundTag !== undefined && !tags.outbounds.includes(outboundTag)) {
      missing('outbound', outboundTag, tags.outbounds);
    }
    if (balancerTag !== undefined && !tags.balancers.includes(balancerTag)) {
      missing('balancer', balancerTag, tags.balancers);
    }
    for (const tag of inboundTag ?? []) {
      if (known === undefined || known.has(tag)) continue;
      missing('inbound', tag, [...known]);
    }
    return faults;
  });
}

/** Tags of inbounds that no protocol has: the api's, the DNS server's, and those of outbounds and of `raw`. */
export function inboundsBesideProtocols({
  outbounds,
  xray,
}: Pick<NodeParts, 'outbounds' | 'xray'>): string[] {
  const dns = (xray.dns ?? {}) as { tag?: string; servers?: (string | { tag?: string })[] };
  const servers = (dns.servers ?? []).map((one) => (typeof one === 'string' ? undefined : one.tag));
  return [
    'api',
    ...[dns.tag, ...servers].filter((tag) => tag !== undefined),
    ...outbounds.flatMap((one) => inboundTagsOf(one as Outbound)),
    ...rawTags(xray).inbounds,
  ];
}

function balancerFaults(
  { balancers = [], observatory, burstObservatory }: XraySettings,
  outbounds: readonly string[],
  tags: readonly string[],
): ReferenceFault[] {
  const faults: ReferenceFault[] = [];
  const add = (message: string): unknown => faults.push({ part: 'xray', message });
  for (const { tag, selector, fallbackTag, ...rest } of balancers) {
    for (const prefix of selector) {
      if (outbounds.some((one) => one.startsWith(prefix))) continue;
      add(`balancer ${tag} selects ${prefix}, with which no outbound begins; ${has(outbounds)}`);
    }
    if (fallbackTag !== undefined && !outbounds.includes(fallbackTag)) {
      add(
        `balancer ${tag} falls back to ${fallbackTag}, which the node does not have; ${has(outbounds)}`,
      );
    }
    const { strategy } = rest as { strategy?: { type: string } };
    const measured = /^(leastping|leastload)$/i.test(strategy?.type ?? '');
    if (measured && observatory === undefined && burstObservatory === undefined) {
      add(`balancer ${tag} has ${strategy?.type}, which needs observatory or burstObservatory`);
    }
  }
  return [...faults, ...twice(tags, 'balancer')];
}

function observatoryFaults(xray: XraySettings, outbounds: readonly string[]): ReferenceFault[] {
  return (['observatory', 'burstObservatory'] as const).flatMap((name) => {
    const selectors = (xray[name]?.['subjectSelector'] ?? []) as string[];
    return selectors
      .filter((prefix) => !outbounds.some((one) => one.startsWith(prefix)))
      .map((prefix) => ({
        part: 'xray' as const,
        message: `${name} selects ${prefix}, with which no outbound begins; ${has(outbounds)}`,
      }));
  });
}

function twice(tags: readonly string[], what: string): ReferenceFault[] {
  const again = tags.filter((tag, at) => tags.indexOf(tag) !== at);
  return [...new Set(again)].map((tag) => ({
    part: 'xray',
    message: `${what} ${tag} comes twice`,
  }));
}

function has(tags: readonly string[]): string {
  return tags.length === 0 ? 'it has none' : `it has ${[...tags].sort().join(', ')}`;
}
