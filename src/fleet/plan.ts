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
import { isPlainObject, settingsWithSecretsKept } from '../settings/keep-secrets.ts';
import { transportsOf } from '../settings/port-transports.ts';
import { defaultOutboundTag } from '../settings/rules.ts';
import type { Fault, FleetFile, FleetNode, FleetOutbound, FleetProtocol } from './file.ts';
import { harmlessField, maskSecrets, withKeptSecrets } from './secrets.ts';
import { byName, type StoredNode } from './state.ts';

/** One line of a plan, as it is printed. Secrets are masked. */
export interface PlanLine {
  action: 'create' | 'change' | 'remove';
  /** Like `protocol VLESS on port 443 of node fra-1`. */
  object: string;
  changes: { field: string; from: unknown; to: unknown }[];
}

/** What is to be done to a node that the file declares; what is undefined stays as it is. */
export interface NodePlan {
  /** Undefined where the node is to be created. */
  stored: StoredNode | undefined;
  name: string;
  /** Of a node to be created all that the file gives; else undefined where nothing changes. */
  fields: { region?: string; host?: string; ip?: string } | undefined;
  protocols: {
    remove: number[];
    change: { nodeProtocolId: number; settings: Record<string, unknown> }[];
    create: FleetProtocol[];
  };
  outbounds: FleetOutbound[] | undefined;
  rules: Record<string, unknown>[] | undefined;
}

export interface FleetPlan {
  lines: PlanLine[];
  nodes: NodePlan[];
  removed: StoredNode[];
}

/**
 * What brings the stored fleet to what the file declares. Nodes are matched by name, protocols by
 * port and kind, outbounds by tag, rules by their place. With `prune` the nodes that the file does not name
 * are removed. Settings are checked here, so a plan that exists can be carried out.
 * @throws CoreError INVALID_ARGUMENT naming the lines at fault.
 */
export function planFleet(
  file: FleetFile,
  fleet: readonly StoredNode[],
  options: { prune: boolean },
): FleetPlan {
  const stored = byName(fleet);
  const plan: FleetPlan = { lines: [], nodes: [], removed: [] };
  const faults: Fault[] = [];
  for (const [index, declared] of file.nodes.entries()) {
    const planner = { declared, stored: stored.get(declared.name), path: ['nodes', index] };
    const { lines, ...node } = planNode(planner, faults);
    plan.lines.push(...lines);
    if (lines.length > 0) plan.nodes.push(node);
  }
  file.refuse(faults);
  if (options.prune) {
    const named = new Set(file.nodes.map((node) => node.name));
    plan.removed = fleet.filter((node) => !named.has(node.name));
    for (const node of plan.removed) {
      plan.lines.push({ action: 'remove', object: `node ${node.name}`, changes: [] });
    }
  }
  return plan;
}

interface Planner {
  declared: FleetNode;
  stored: StoredNode | undefined;
  path: (string | number)[];
}

function planNode(planner: Planner, faults: Fault[]): NodePlan & { lines: PlanLine[] } {
  const { declared, stored } = planner;
  const lines: PlanLine[] = [];
  const { name, region, host, ip } = declared;
  const given = Object.fromEntries(
    Object.entries({ region, host, ip }).filter(([, value]) => value !== undefined),
  ) as NonNullable<NodePlan['fields']>;
  let fields: NodePlan['fields'];
  if (stored === undefined) {
    fields = given;
    lines.push({
      action: 'create',
      object: `node ${name}`,
      changes: differences({}, given, nodeFields),
    });
  } else {
    const old = { region: stored.region, host: stored.host, ip: stored.ip };
    const changes = differences(old, { ...old, ...given }, nodeFields);
    if (changes.length > 0) {
      fields = given;
      lines.push({ action: 'change', object: `node ${name}`, changes });
    }
  }
  const protocols = planProtocols(planner, lines, faults);
  const outbounds = planOutbounds(planner, lines, faults);
  const rules = planRules(planner, lines, faults);
  requireTargets(planner, faults);
  return { stored, name, fields, protocols, outbounds, rules, lines };
}

function planProtocols(
  { declared, stored, path }: Planner,
  lines: PlanLine[],
  faults: Fault[],
): NodePlan['protocols'] {
  const plan: NodePlan['protocols'] = { remove: [], change: [], create: [] };
  if (declared.protocols === undefined) return plan;
  const matched = matchProtocols(declared.protocols, stored?.protocols ?? []);
  const nameOf = (one: { protocol: string; port: number }): string =>
    `protocol ${one.protocol} on port ${one.port} of node ${declared.name}`;
  const created: PlanLine[] = [];
  for (const [index, one] of declared.protocols.entries()) {
    const place = [...path, 'protocols', index, 'settings'];
    const same = matched.get(one);
    const given = keepSecrets(one.settings, same?.settings, place, faults);
    const settings = checked(place, faults, () =>
      same === undefined
        ? validateProtocolSettings(one.protocol, given)
        : settingsWithSecretsKept(one.protocol, given, same.settings),
    );
    if (settings === undefined) continue;
    if (same === undefined) {
      plan.create.push({ ...one, settings });
      created.push({
        action: 'create',
        object: nameOf(one),
        changes: differences({}, settings, protocolSettings),
      });
      continue;
    }
    const changes = differences(same.settings, settings, protocolSettings);
    if (changes.length === 0) continue;
    plan.change.push({ nodeProtocolId: same.nodeProtocolId, settings });
    lines.push({ action: 'change', object: nameOf(one), changes });
  }
  const kept = new Set(matched.values());
  for (const one of stored?.protocols ?? []) {
    if (kept.has(one)) continue;
    plan.remove.push(one.nodeProtocolId);
    lines.push({ action: 'remove', object: nameOf(one), changes: [] });
  }
  // After what makes room for it: another protocol may have had its port.
  lines.push(...created);
  return plan;
}

/**
 * Which stored protocol a declared one is: that of its kind on its port. There are two only where a
 * Shadowsocks on TCP and one on UDP share a port, and then the transport decides, so that carrying
 * the changes out one by one never needs a port that another one still has.
 */
function matchProtocols(
  declared: readonly FleetProtocol[],
  stored: StoredNode['protocols'],
): Map<FleetProtocol, StoredNode['protocols'][number]> {
  const matched = new Map<FleetProtocol, StoredNode['protocols'][number]>();
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

function planOutbounds(
  { declared, stored, path }: Planner,
  lines: PlanLine[],
  faults: Fault[],
): FleetOutbound[] | undefined {
  if (declared.outbounds === undefined) return undefined;
  const old = stored?.outbounds ?? [];
  const left = new Map(old.map((one) => [one.tag, one]));
  const before = lines.length;
  const wanted = declared.outbounds.map((one, index) => {
    const place = [...path, 'outbounds', index, 'settings'];
    const same = left.get(one.tag);
    left.delete(one.tag);
    const outbound = { ...one, settings: keepSecrets(one.settings, same?.settings, place, faults) };
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
  return lines.length > before ? wanted : undefined;
}

function contentOf(outbound: FleetOutbound | undefined): Record<string, unknown> {
  return outbound === undefined ? {} : { protocol: outbound.protocol, settings: outbound.settings };
}

function planRules(
  { declared, stored, path }: Planner,
  lines: PlanLine[],
  faults: Fault[],
): Record<string, unknown>[] | undefined {
  if (declared.rules === undefined) return undefined;
  const old = stored?.rules ?? [];
  const wanted = keepSecrets(declared.rules, old, [...path, 'rules'], faults);
  let differ = false;
  for (let index = 0; index < Math.max(old.length, wanted.length); index += 1) {
    const [from, to] = [old[index], wanted[index]];
    if (isDeepStrictEqual(from, to)) continue;
    differ = true;
    const action = from === undefined ? 'create' : to === undefined ? 'remove' : 'change';
    const object = `rule ${index + 1} of node ${declared.name}`;
    lines.push({ action, object, changes: [maskedChange('rule', from, to, routingRule)] });
  }
  return differ ? wanted : undefined;
}

/** As `requireRuleTargets` checks it in the database, with the line of the rule. */
function requireTargets({ declared, stored, path }: Planner, faults: Fault[]): void {
  const outbounds = declared.outbounds ?? stored?.outbounds ?? [];
  const tags = outbounds.length === 0 ? [defaultOutboundTag] : outbounds.map((one) => one.tag);
  const rules = declared.rules ?? stored?.rules ?? [];
  for (const [index, rule] of rules.entries()) {
    const tag = String(rule['outboundTag']);
    if (tags.includes(tag)) continue;
    faults.push({
      path: declared.rules === undefined ? [...path, 'outbounds'] : [...path, 'rules', index],
      message: `Rule ${index + 1} would go to outbound ${tag}, which the node would not have; it would have ${tags.join(', ')}`,
    });
  }
}

function keepSecrets<T>(
  given: T,
  stored: T | undefined,
  path: (string | number)[],
  faults: Fault[],
): T {
  const missing = (inner: (string | number)[]): void => {
    faults.push({
      path: [...path, ...inner],
      message:
        'Is a secret that the file leaves out and Core does not have here; write it, or export it with --secrets',
    });
  };
  return withKeptSecrets(given, stored, missing) as T;
}

/** Runs a check of settings; what it refuses becomes a fault at their place. */
function checked<T>(path: (string | number)[], faults: Fault[], check: () => T): T | undefined {
  try {
    return check();
  } catch (thrown) {
    if (!(thrown instanceof CoreError) || thrown.code !== 'INVALID_ARGUMENT') throw thrown;
    // A marker without a value is a fault already, and says more.
    const named = (fault: Fault): boolean => path.every((step, at) => fault.path[at] === step);
    if (!faults.some(named)) faults.push({ path, message: thrown.message });
    return undefined;
  }
}

const nodeFields: Harmless = { region: shown, host: shown, ip: shown };
const outboundFields: Harmless = { protocol: shown, settings: outboundSettings };

/** Every leaf that differs, arrays as one, with secrets masked. */
function differences(
  from: unknown,
  to: unknown,
  harmless: Harmless | undefined,
  path: readonly string[] = [],
): PlanLine['changes'] {
  if (isDeepStrictEqual(from, to)) return [];
  if (typeof harmless === 'object' && isPlainObject(from) && isPlainObject(to)) {
    const names = new Set([...Object.keys(from), ...Object.keys(to)]);
    return [...names].flatMap((name) =>
      differences(from[name], to[name], harmlessField(harmless, name), [...path, name]),
    );
  }
  return [maskedChange(path.join('.'), from, to, harmless)];
}

function maskedChange(
  field: string,
  from: unknown,
  to: unknown,
  harmless: Harmless | undefined,
): PlanLine['changes'][number] {
  const masked = (value: unknown): unknown =>
    value === undefined ? undefined : maskSecrets(value, harmless);
  return { field, from: masked(from), to: masked(to) };
}
