import { isDeepStrictEqual } from 'node:util';
import { CoreError } from '../errors.ts';
import { validateProtocolSettings } from '../protocols/settings.ts';
import { type Harmless, protocolSettings, shown } from '../settings/harmless.ts';
import { settingsWithSecretsKept } from '../settings/keep-secrets.ts';
import type { Listener } from '../settings/port-transports.ts';
import { defaultProtocolName, freeName } from '../settings/protocol-names.ts';
import type { NamedListener } from '../settings/references.ts';
import type { Fault, FleetProtocol } from './file.ts';
import { type Match, matchProtocols, type StoredProtocol } from './match-protocols.ts';
import { differences, type PlanLine } from './plan-lines.ts';
import { keepSecrets, type Planned } from './planned.ts';

/** What brings the protocols of one node to what the file declares. */
export interface ProtocolsPlan {
  remove: number[];
  change: ChangedProtocol[];
  create: (FleetProtocol & { name: string })[];
  /** The names that the node's protocols are going to have. */
  names: string[];
  /** Where they are going to listen, as far as the file's settings are right. */
  listeners: NamedListener[];
  /** From the stored name of a protocol to the one that it is going to have. */
  renamed: Map<string, string>;
  /** The names that new protocols take over from protocols that end. */
  replaced: Set<string>;
}

export interface ChangedProtocol {
  nodeProtocolId: number;
  name: string;
  port: number;
  settings: Record<string, unknown>;
  /** Undefined if its groups stay. */
  groups: string[] | undefined;
  /** False if nothing but its groups changes. */
  changesSettings: boolean;
}

export function planProtocols(planned: Planned): ProtocolsPlan {
  const { declared, stored, lines } = planned;
  const old = stored?.protocols ?? [];
  const plan = emptyPlan(old);
  if (declared.protocols === undefined) return plan;
  const matches = matchProtocols(declared.protocols, old);
  requireGroups(planned, declared.protocols);
  const names = namesAfter(declared.protocols, matches);
  plan.names = [...names.values()];
  plan.listeners = [];
  const created: PlanLine[] = [];
  for (const [index, one] of declared.protocols.entries()) {
    const match = matches.get(one);
    const name = names.get(one) ?? '';
    const settings = settingsToStore(planned, index, one, match?.stored);
    if (settings === undefined) continue;
    plan.listeners.push(listenerOf(name, { ...one, settings }));
    if (match === undefined) {
      plan.create.push({ ...one, name, settings });
      created.push(createLine(planned, one, name, settings));
      continue;
    }
    if (match.stored.name !== name) plan.renamed.set(match.stored.name, name);
    const change = { ...one, name, settings, nodeProtocolId: match.stored.nodeProtocolId };
    const line = changeLine(planned, match, change);
    if (line === undefined) continue;
    const { moves } = line;
    const changesSettings = line.changes.some(({ field }) => field !== 'groups');
    plan.change.push({ ...change, groups: moves && [...moves.after], changesSettings });
    lines.push(line);
  }
  const kept = new Set([...matches.values()].map((match) => match.stored));
  for (const one of old) {
    if (kept.has(one)) continue;
    const { nodeProtocolId } = one;
    plan.remove.push(nodeProtocolId);
    if (plan.create.some(({ name }) => name === one.name)) plan.replaced.add(one.name);
    lines.push({
      action: 'remove',
      object: objectOf(planned, one),
      changes: [],
      ends: [nodeProtocolId],
    });
  }
  // A new protocol may take the port of a removed one, so it comes after it.
  lines.push(...created);
  return plan;
}

function emptyPlan(old: readonly StoredProtocol[]): ProtocolsPlan {
  return {
    remove: [],
    change: [],
    create: [],
    names: old.map(({ name }) => name),
    listeners: old.map((one) => listenerOf(one.name, one)),
    renamed: new Map(),
    replaced: new Set(),
  };
}

function listenerOf(name: string, { protocol, port, settings }: Listener): NamedListener {
  return { protocol, port, settings, called: `protocol ${name} (${protocol})` };
}

/** A group that is neither in Core nor in the file's list is a slip of the pen: nobody would get a link. */
function requireGroups(
  { groups, path, faults }: Planned,
  declared: readonly FleetProtocol[],
): void {
  for (const [index, one] of declared.entries()) {
    for (const [at, group] of (one.groups ?? []).entries()) {
      if (groups.has(group)) continue;
      faults.push({
        path: [...path, 'protocols', index, 'groups', at],
        message: `There is no group ${group}; add it to groups at the top of the file, and core apply makes it`,
      });
    }
  }
}

function objectOf({ declared }: Planned, one: { protocol: string; port: number }): string {
  return `protocol ${one.protocol} on port ${one.port} of node ${declared.name}`;
}

/** The name that each declared protocol is going to have: its own, the stored one, or one that Core makes. */
function namesAfter(
  declared: readonly FleetProtocol[],
  matches: ReadonlyMap<FleetProtocol, Match>,
): Map<FleetProtocol, string> {
  const names = new Map<FleetProtocol, string>();
  for (const one of declared) if (one.name !== undefined) names.set(one, one.name);
  for (const wantsStored of [true, false]) {
    for (const one of declared) {
      const stored = matches.get(one)?.stored.name;
      if (names.has(one) || (stored !== undefined) !== wantsStored) continue;
      const wanted = stored ?? defaultProtocolName(one.protocol, one.port);
      names.set(one, freeName(wanted, new Set(names.values())));
    }
  }
  return names;
}

const placeFields: Harmless = { name: shown, port: shown, groups: shown };

function createLine(
  planned: Planned,
  one: FleetProtocol,
  name: string,
  settings: Record<string, unknown>,
): PlanLine {
  const groups = one.groups === undefined ? {} : { groups: sorted(one.groups) };
  const changes = [
    ...differences({}, { name, ...groups }, placeFields),
    ...differences({}, settings, protocolSettings),
  ];
  return { action: 'create', object: objectOf(planned, one), changes };
}

/** Undefined if nothing changes. */
function changeLine(
  planned: Planned,
  { stored, by }: Match,
  change: FleetProtocol & { name: string },
): PlanLine | undefined {
  const groups = change.groups === undefined ? stored.groups : sorted(change.groups);
  const moves = isDeepStrictEqual(groups, stored.groups)
    ? {}
    : { moves: { before: stored.groups, after: groups } };
  const changes = [
    ...differences(
      { name: stored.name, port: stored.port, groups: stored.groups },
      { name: change.name, port: change.port, groups },
      placeFields,
    ),
    ...differences(stored.settings, change.settings, protocolSettings),
  ];
  if (changes.length === 0) return undefined;
  const line: PlanLine = {
    action: 'change',
    object: objectOf(planned, stored),
    changes,
    ...moves,
  };
  if (by !== 'kind') return line;
  const note = `the file gives it no name: it is taken for this one because the node has one ${stored.protocol} before and after; its links stay`;
  return { ...line, note };
}

function sorted(groups: readonly string[]): string[] {
  return [...new Set(groups)].sort();
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
