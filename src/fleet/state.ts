import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import type { OutboundOptions } from '../protocols/outbound/outbound.ts';
import type { XraySettings } from '../protocols/routing/xray-settings.ts';
import type { Queryable } from '../stores/postgres.ts';
import type { FleetOutbound } from './file.ts';
import { toNames } from './inbound-tags.ts';
import { readProtocolGroups } from './protocol-groups.ts';

type StoredProtocol = StoredNode['protocols'][number];

/** A node with everything that a fleet file can declare of it. */
export interface StoredNode {
  nodeId: number;
  name: string;
  region: string;
  host: string;
  ip: string;
  protocols: {
    nodeProtocolId: number;
    name: string;
    /** The groups that it is in, sorted. */
    groups: string[];
    protocol: VpnProtocol;
    port: number;
    settings: Record<string, unknown>;
  }[];
  outbounds: FleetOutbound[];
  /** They name an inbound by the name of its protocol, not by its tag. */
  rules: Record<string, unknown>[];
  xray: XraySettings;
}

/**
 * Every node that is not revoked, by id. For the state of one moment, call it under locks or in a
 * REPEATABLE READ transaction.
 */
export async function readFleet(db: Queryable): Promise<StoredNode[]> {
  const nodes = await db.query<Omit<StoredNode, 'protocols' | 'outbounds' | 'rules'>>(
    `SELECT id AS "nodeId", name, region, host, ip, xray_settings AS xray FROM nodes
     WHERE revoked_at IS NULL ORDER BY id`,
  );
  const fleet = new Map<number, StoredNode>(
    nodes.rows.map((row) => [row.nodeId, { ...row, protocols: [], outbounds: [], rules: [] }]),
  );
  const groups = await readProtocolGroups(db);
  const protocols = await db.query<Omit<StoredProtocol, 'groups'> & { nodeId: number }>(
    `SELECT node_id AS "nodeId", id AS "nodeProtocolId", name, protocol, port, settings
     FROM node_protocols ORDER BY port, id`,
  );
  for (const { nodeId, ...row } of protocols.rows) {
    const own = groups.get(row.nodeProtocolId) ?? [];
    fleet.get(nodeId)?.protocols.push({ ...row, groups: own });
  }
  const outbounds = await db.query<FleetOutbound & { nodeId: number; options: OutboundOptions }>(
    `SELECT node_id AS "nodeId", tag, protocol, settings, options FROM node_outbounds
     WHERE configured ORDER BY position, tag COLLATE "C"`,
  );
  for (const { nodeId, options, ...row } of outbounds.rows) {
    fleet.get(nodeId)?.outbounds.push({ ...row, ...options });
  }
  const rules = await db.query<{ nodeId: number; rule: Record<string, unknown> }>(
    'SELECT node_id AS "nodeId", rule FROM routing_rules ORDER BY position',
  );
  for (const { nodeId, rule } of rules.rows) {
    const node = fleet.get(nodeId);
    node?.rules.push(toNames(rule, node.protocols));
  }
  return [...fleet.values()];
}

/**
 * The nodes by name, since a fleet file identifies them by it.
 * @throws CoreError INVALID_ARGUMENT if two have the same name.
 */
export function byName(fleet: readonly StoredNode[]): Map<string, StoredNode> {
  const named = new Map<string, StoredNode>();
  for (const node of fleet) {
    const other = named.get(node.name);
    if (other !== undefined) {
      throw new CoreError(
        'INVALID_ARGUMENT',
        `Nodes ${other.nodeId} and ${node.nodeId} are both called ${node.name}; rename one with core node set`,
      );
    }
    named.set(node.name, node);
  }
  return named;
}
