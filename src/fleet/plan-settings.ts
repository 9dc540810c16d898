import { isDeepStrictEqual } from 'node:util';
import { CoreError } from '../errors.ts';
import { validateProtocolSettings } from '../protocols/settings.ts';
import {
  type Harmless,
  outboundSettings,
  protocolSettings,
  routingRule,
  shown,
} from '../settings/harmless.ts';
import { settingsWithSecretsKept } from '../settings/keep-secrets.ts';
import { transportsOf } from '../settings/port-transports.ts';
import { defaultOutboundTag } from '../settings/rules.ts';
import type { Fault, FleetNode, FleetOutbound, FleetProtocol } from './file.ts';
import { differences, maskedChange, type PlanLine } from './plan-lines.ts';
import { withKeptSecrets } from './secrets.ts';
import type { StoredNode } from './state.ts';

// The settings of one node: what brings its protocols, outbounds and rules to what the file declares.

type StoredProtocol = StoredNode['protocols'][number];
type Path = readonly (string | number)[];

/** A node while `planFleet` plans it. The functions below add to its lines and faults. */
export interface Planned {
  declared: FleetNode;
  /** Undefined if Core has no node of this name. */
  stored: StoredNode | undefined;
  /** The place of the node in the file. */
  path: Path;
  lines: PlanLine[];
  faults: Fault[];
}

export interface ProtocolsPlan {
  remove: number[];
  change: { nodeProtocolId: number; settings: Record<string, unknown> }[];
  create: FleetProtocol[];
}

export function planProtocols(planned: Planned): ProtocolsPlan {
  const { declared, stored, lines } = planned;
  const plan: ProtocolsPlan = { remove: [], change: [], create: [] };
  if (declared.protocols === undefined) return plan;
  const storedOf = matchProtocols(declared.protocols, stored?.protocols ?? []);
  const nameOf = (one: { protocol: string; port: number }): string =>
    `protocol ${one.protocol} on port ${one.port} of node ${declared.name}`;
  const created: PlanLine[] = [];
  for (const [index, one] of declared.protocols.entries()) {
    const old = storedOf.get(one);
    const settings = settingsToStore(planned, index, one, old);
    if (settings === undefined) continue;
    if (old === undefined) {
      plan.create.push({ ...one, settings });
      const changes = differences({}, settings, protocolSettings);
      created.push({ action: 'create', object: nameOf(one), changes });
      continue;
    }
    const changes = differences(old.settings, settings, protocolSettings);
    if (changes.length === 0) continue;
    plan.change.push({ nodeProtocolId: old.nodeProtocolId, settings });
    lines.push({ action: 'change', object: nameOf(one), changes });
  }
  const kept = new Set(storedOf.values());
  for (const one of stored?.protocols ?? []) {
    if (kept.has(one)) continue;
    plan.remove.push(one.nodeProtocolId);
    lines.push({ action: 'remove', object: nameOf(one), changes: [] });
  }
  // A new protocol may take the port of a removed one, so it comes after it.
  lines.push(...created);
  return plan;
}

/** The settings of a declared protocol, checked and complete. Undefined if they are at fault. */
function settingsToStore(
  planned: Planned,
  index: number,
  one: FleetProtocol,
  old: StoredProtocol | undefined,
): Record<string, unknown> | undefined {
  const path = [...planned.path, 'protocols', index, 'settings'];
  const given = keepSecrets(planned, one.settings, old?.settings, path);
  try {
    return old === undefined
      ? validateProtocolSettings(one.protocol, given)
      : settingsWithSecretsKept(one.protocol, given, old.settings);
  } catch (thrown) {
    if (!(thrown instanceof CoreError) || thrown.code !== 'INVALID_ARGUMENT') throw thrown;
    // If a marker here stands for nothing, that fault is in the list already, and says more.
    const isHere = (fault: Fault): boolean => path.every((step, at) => fault.path[at] === step);
    if (!planned.faults.some(isHere)) planned.faults.push({ path, message: thrown.message });
    return undefined;
  }
}

/**
 * Finds the stored protocol that each declared one is: the one of the same name on its port. There
 * are two of these only if a Shadowsocks on TCP and one on UDP share a port. Then the transport
 * decides, because otherwise a change could need a port that another protocol gives up only later.
 */
function matchProtocols(
  declared: readonly FleetProtocol[],
  stored: readonly StoredProtocol[],
): Map<FleetProtocol, StoredProtocol> {
  const matched = new Map<FleetProtocol, StoredProtocol>();
  const left = new Set(stored);
  for (const anyTransport of [false, true]) {
    for (const one of declared) {
      if (matched.has(one)) continue;
      const transports = transportsOf(one.protocol, one.settings);
      for (const old of left) {
        if (old.protocol !== one.protocol || old.port !== one.port) continue;
        const shared = transportsOf(old.protocol, old.settings).some((transport) =>
          transports.includes(transport),
        );
        if (!shared && !anyTransport) continue;
        matched.set(one, old);
        left.delete(old);
        break;
      }
    }
  }
  return matched;
}

/** All outbounds that the node is to have. Undefined if nothing changes. */
export function planOutbounds(planned: Planned): FleetOutbound[] | undefined {
  const { declared, stored, path, lines } = planned;
  if (declared.outbounds === undefined) return undefined;
  const old = stored?.outbounds ?? [];
  const left = new Map(old.map((one) => [one.tag, one]));
  const linesBefore = lines.length;
  const wanted = declared.outbounds.map((one, index) => {
    const place = [...path, 'outbounds', index, 'settings'];
    const same = left.get(one.tag);
    left.delete(one.tag);
    const settings = keepSecrets(planned, one.settings, same?.settings, place);
    const outbound = { ...one, settings };
    const changes = differences(contentOf(same), contentOf(outbound), outboundFields);
    const object = `outbound ${one.tag} of node ${declared.name}`;
    if (same === undefined) lines.push({ action: 'create', object, changes });
    else if (changes.length > 0) lines.push({ action: 'change', object, changes });
    return outbound;
  });
  for (const { tag } of left.values()) {
    const object = `outbound ${tag} of node ${declared.name}`;
    lines.push({ action: 'remove', object, changes: [] });
  }
  const [from, to] = [old.map((one) => one.tag), wanted.map((one) => one.tag)];
  const kept = from.filter((tag) => to.includes(tag));
  if (!isDeepStrictEqual(kept.concat(to.filter((tag) => !from.includes(tag))), to)) {
    const object = `order of the outbounds of node ${declared.name}`;
    lines.push({ action: 'change', object, changes: [{ field: 'tags', from, to }] });
  }
  return lines.length > linesBefore ? wanted : undefined;
}

const outboundFields: Harmless = { protocol: shown, settings: outboundSettings };

function contentOf(outbound: FleetOutbound | undefined): Record<string, unknown> {
  return outbound === undefined ? {} : { protocol: outbound.protocol, settings: outbound.settings };
}

/** All rules that the node is to have. Undefined if nothing changes. */
export function planRules(planned: Planned): Record<string, unknown>[] | undefined {
  const { declared, stored, path, lines } = planned;
  if (declared.rules === undefined) return undefined;
  const old = stored?.rules ?? [];
  const wanted = keepSecrets(planned, declared.rules, old, [...path, 'rules']);
  const linesBefore = lines.length;
  for (let index = 0; index < Math.max(old.length, wanted.length); index += 1) {
    const [from, to] = [old[index], wanted[index]];
    if (isDeepStrictEqual(from, to)) continue;
    const action = from === undefined ? 'create' : to === undefined ? 'remove' : 'change';
    const object = `rule ${index + 1} of node ${declared.name}`;
    lines.push({ action, object, changes: [maskedChange('rule', from, to, routingRule)] });
  }
  return lines.length > linesBefore ? wanted : undefined;
}

/** Checks the same as `requireRuleTargets` does in the database, but can name the line of the rule. */
export function requireTargets({ declared, stored, path, faults }: Planned): void {
  const outbounds = declared.outbounds ?? stored?.outbounds ?? [];
  const tags = outbounds.length === 0 ? [defaultOutboundTag] : outbounds.map((one) => one.tag);
  const rules = declared.rules ?? stored?.rules ?? [];
  for (const [index, rule] of rules.entries()) {
    const tag = String(rule['outboundTag']);
    if (tags.includes(tag)) continue;
    faults.push({
      path: declared.rules === undefined ? [...path, 'outbounds'] : [...path, 'rules', index],
      message: `Rule ${index + 1} names the outbound ${tag}, which the node would not have; it would have ${tags.join(', ')}`,
    });
  }
}

/** Fills in the stored secrets. A marker becomes a fault if Core has no secret for it. */
function keepSecrets<T>(planned: Planned, given: T, stored: T | undefined, path: Path): T {
  const missing = (inner: Path): void => {
    planned.faults.push({
      path: [...path, ...inner],
      message:
        'Is a secret that the file leaves out and Core does not have here; write it, or export it with --secrets',
    });
  };
  return withKeptSecrets(given, stored, missing) as T;
}
