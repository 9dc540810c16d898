import { isDeepStrictEqual } from 'node:util';
import { outboundFaults } from '../protocols/outbound/outbound.ts';
import type { XraySettings } from '../protocols/routing/xray-settings.ts';
import {
  type Harmless,
  outboundOptions,
  outboundSettings,
  routingRule,
  shown,
} from '../settings/harmless.ts';
import { inboundsBesideProtocols, referenceFaults } from '../settings/references.ts';
import type { Fault, FleetOutbound } from './file.ts';
import { inboundTagsOf, toNames, withInboundTags } from './inbound-tags.ts';
import { differences, maskedChange } from './plan-lines.ts';
import type { ProtocolsPlan } from './plan-protocols.ts';
import { keepSecrets, type Planned } from './planned.ts';

// The settings of one node: what brings its outbounds and rules to what the file declares.

/** All outbounds that the node is to have. Undefined if nothing changes. */
export function planOutbounds(planned: Planned): FleetOutbound[] | undefined {
  const { declared, stored, path, lines } = planned;
  if (declared.outbounds === undefined) return undefined;
  const old = stored?.outbounds ?? [];
  const left = new Map(old.map((one) => [one.tag, one]));
  const linesBefore = lines.length;
  const wanted = declared.outbounds.map((one, index) => {
    const same = left.get(one.tag);
    left.delete(one.tag);
    const outbound = keepSecrets(planned, one, same, [...path, 'outbounds', index]);
    const changes = differences(contentOf(same), contentOf(outbound), outboundFields);
    if (changes.length > 0) checkOutbound(planned, index, outbound);
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

const outboundFields: Harmless = {
  protocol: shown,
  settings: outboundSettings,
  ...outboundOptions,
};

function contentOf(outbound: FleetOutbound | undefined): Record<string, unknown> {
  if (outbound === undefined) return {};
  const { tag: _tag, ...content } = outbound;
  return content;
}

/** Checks a new or changed outbound. One that stays as it is may be from before Core checked as much. */
function checkOutbound(planned: Planned, index: number, outbound: FleetOutbound): void {
  const path = [...planned.path, 'outbounds', index];
  const isHere = (fault: Fault): boolean => path.every((step, at) => fault.path[at] === step);
  // If a marker here stands for nothing, that fault is in the list already, and says more.
  if (planned.faults.some(isHere)) return;
  for (const fault of outboundFaults(outbound)) {
    planned.faults.push({ path: [...path, ...fault.path], message: fault.message });
  }
}

/** All rules that the node is to have. Undefined if nothing changes. */
export function planRules(
  planned: Planned,
  protocols: ProtocolsPlan,
): Record<string, unknown>[] | undefined {
  const { declared, stored, path, lines } = planned;
  const old = storedRules(planned, protocols);
  // The stored rules have the tag of the protocol that ends, and have to get that of its successor.
  const isStale = old.flatMap(inboundTagsOf).some((name) => protocols.replaced.has(name));
  if (declared.rules === undefined) return isStale ? old : undefined;
  const given = declared.rules.map((rule) =>
    withInboundTags(toNames(rule, stored?.protocols ?? []), (name) => nameAfter(protocols, name)),
  );
  const wanted = keepSecrets(planned, given, old, [...path, 'rules']);
  const linesBefore = lines.length;
  for (let index = 0; index < Math.max(old.length, wanted.length); index += 1) {
    const [from, to] = [old[index], wanted[index]];
    if (isDeepStrictEqual(from, to)) continue;
    const action = from === undefined ? 'create' : to === undefined ? 'remove' : 'change';
    const object = `rule ${index + 1} of node ${declared.name}`;
    lines.push({ action, object, changes: [maskedChange('rule', from, to, routingRule)] });
  }
  return isStale || lines.length > linesBefore ? wanted : undefined;
}

/** The stored rules with the names that the protocols are going to have. */
function storedRules({ stored }: Planned, protocols: ProtocolsPlan): Record<string, unknown>[] {
  return (stored?.rules ?? []).map((rule) =>
    withInboundTags(rule, (name) => nameAfter(protocols, name)),
  );
}

function nameAfter({ renamed }: ProtocolsPlan, name: string): string {
  return renamed.get(name) ?? name;
}

/** Checks the same as `requireReferences` does in the database, but can name the line of the part. */
export function requireTargets(
  planned: Planned,
  protocols: ProtocolsPlan,
  xray: XraySettings,
): void {
  const { declared, stored, path, faults } = planned;
  const outbounds = declared.outbounds ?? stored?.outbounds ?? [];
  const found = referenceFaults({
    // A new protocol has no id yet, so its rules are checked by its name.
    inboundTags: undefined,
    listeners: protocols.listeners,
    outbounds,
    rules: declared.rules ?? stored?.rules ?? [],
    xray,
  });
  // What the file does not declare comes to be at fault by what it does.
  const changed = declared.outbounds === undefined ? 'protocols' : 'outbounds';
  for (const { part, index, message } of found) {
    const place = index === undefined ? [part] : [part, index];
    faults.push({
      path: declared[part] === undefined ? [...path, changed] : [...path, ...place],
      message,
    });
  }
  requireInbounds(planned, protocols, inboundsBesideProtocols({ outbounds, xray }));
}

/**
 * A rule on an inbound that is gone never matches again, and traffic that it kept apart would go elsewhere.
 * A rule that was so before this plan is left alone as long as the plan changes nothing of its node: Core takes
 * no change of a node with such a rule.
 */
function requireInbounds(
  planned: Planned,
  protocols: ProtocolsPlan,
  others: readonly string[],
): void {
  const { declared, stored, path, faults } = planned;
  const known = new Set([...protocols.names, ...others]);
  const had = new Set((stored?.protocols ?? []).map(({ name }) => name));
  if (stored !== undefined) for (const tag of inboundsBesideProtocols(stored)) had.add(tag);
  const before = planned.lines.length === 0 ? (stored?.rules ?? []) : [];
  const dead = new Set(
    before.flatMap(inboundTagsOf).filter((tag) => !had.has(tag) && !known.has(tag)),
  );
  const rules =
    declared.rules?.map((rule) => toNames(rule, stored?.protocols ?? [])) ??
    storedRules(planned, protocols);
  for (const [index, rule] of rules.entries()) {
    const missing = inboundTagsOf(rule)
      .map((tag) => nameAfter(protocols, tag))
      .find((tag) => !known.has(tag) && !dead.has(tag));
    if (missing === undefined) continue;
    const has = protocols.names.length === 0 ? 'none' : protocols.names.join(', ');
    faults.push({
      path: declared.rules === undefined ? [...path, 'protocols'] : [...path, 'rules', index],
      message: `Rule ${index + 1} names the inbound ${missing}, which the node would not have; it would have ${has}`,
    });
  }
}
