import type { XraySettings } from '../protocols/routing/xray-settings.ts';
import { type Harmless, shown } from '../settings/harmless.ts';
import type { Fault, FleetFile, FleetOutbound } from './file.ts';
import { differences, type PlanLine } from './plan-lines.ts';
import { type ProtocolsPlan, planProtocols } from './plan-protocols.ts';
import { planOutbounds, planRules, requireTargets } from './plan-settings.ts';
import { planXray } from './plan-xray.ts';
import type { Planned } from './planned.ts';
import { byName, type StoredNode } from './state.ts';

/** What `apply` does to a node that the file declares. What is undefined stays as it is. */
export interface NodePlan {
  /** Undefined if `apply` creates the node. */
  stored: StoredNode | undefined;
  name: string;
  /** Everything that the file says of a new node. For a stored one, undefined if nothing changes. */
  fields: NodeFields | undefined;
  protocols: ProtocolsPlan;
  outbounds: FleetOutbound[] | undefined;
  /** They name inbounds by the names of protocols. */
  rules: Record<string, unknown>[] | undefined;
  xray: XraySettings | undefined;
}

interface NodeFields {
  region?: string;
  host?: string;
  ip?: string;
}

export interface FleetPlan {
  lines: PlanLine[];
  /** The groups to make. */
  groups: string[];
  nodes: NodePlan[];
  removed: StoredNode[];
}

/** What Core has before a plan. */
export interface StoredFleet {
  nodes: readonly StoredNode[];
  /** The names of all groups. */
  groups: readonly string[];
}

/**
 * Plans what brings the stored fleet to what the file declares. It matches nodes by name, protocols
 * as `matchProtocols` does, outbounds by tag and rules by position. With `prune` it removes the nodes
 * that the file does not name. It makes groups, and removes none. It checks all settings, so that a plan can always be carried out.
 * @throws CoreError INVALID_ARGUMENT naming the lines at fault.
 */
export function planFleet(
  file: FleetFile,
  fleet: StoredFleet,
  options: { prune: boolean },
): FleetPlan {
  const stored = byName(fleet.nodes);
  const groups = [...new Set(file.groups)].filter((name) => !fleet.groups.includes(name));
  const lines: PlanLine[] = groups.map((name) => ({
    action: 'create',
    object: `group ${name}`,
    changes: [],
  }));
  const plan: FleetPlan = { lines, groups, nodes: [], removed: [] };
  const faults: Fault[] = [];
  const known = new Set([...fleet.groups, ...groups]);
  for (const [index, declared] of file.nodes.entries()) {
    const path = ['nodes', index];
    const planned: Planned = {
      declared,
      stored: stored.get(declared.name),
      path,
      groups: known,
      lines: [],
      faults,
    };
    const node = planNode(planned);
    plan.lines.push(...planned.lines);
    if (planned.lines.length > 0) plan.nodes.push(node);
  }
  file.refuse(faults);
  if (options.prune) {
    const named = new Set(file.nodes.map((node) => node.name));
    plan.removed = fleet.nodes.filter((node) => !named.has(node.name));
    for (const node of plan.removed) {
      const ends = node.protocols.map(({ nodeProtocolId }) => nodeProtocolId);
      plan.lines.push({ action: 'remove', object: `node ${node.name}`, changes: [], ends });
    }
  }
  return plan;
}

function planNode(planned: Planned): NodePlan {
  const { declared, stored } = planned;
  const fields = planFields(planned);
  const protocols = planProtocols(planned);
  const outbounds = planOutbounds(planned);
  const rules = planRules(planned, protocols);
  const xray = planXray(planned);
  requireTargets(planned, protocols, xray ?? stored?.xray ?? {});
  return { stored, name: declared.name, fields, protocols, outbounds, rules, xray };
}

const nodeFields: Harmless = { region: shown, host: shown, ip: shown };

function planFields({ declared, stored, lines }: Planned): NodeFields | undefined {
  const { name, region, host, ip } = declared;
  const given: NodeFields = Object.fromEntries(
    Object.entries({ region, host, ip }).filter(([, value]) => value !== undefined),
  );
  const object = `node ${name}`;
  if (stored === undefined) {
    lines.push({ action: 'create', object, changes: differences({}, given, nodeFields) });
    return given;
  }
  const old = { region: stored.region, host: stored.host, ip: stored.ip };
  const changes = differences(old, { ...old, ...given }, nodeFields);
  if (changes.length === 0) return undefined;
  lines.push({ action: 'change', object, changes });
  return given;
}
