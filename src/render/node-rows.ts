import type { VpnProtocol } from '../contract/enums.ts';
import type { PackedLinks } from './link-records.ts';

/** Everything that a node's configuration is made of, as of one moment. */
export interface NodeRows extends NodeSettings {
  node: { id: number; host: string; ip: string; revision: number };
  /** Only those of active subscriptions that have not run out. */
  links: PackedLinks[];
}

/** What operators set: the part of the rows that a rollback takes from an earlier revision. */
export interface NodeSettings {
  protocols: ProtocolRow[];
  /** Only those that an operator configured. */
  outbounds: OutboundRow[];
  rules: RuleRow[];
}

export interface ProtocolRow {
  id: number;
  protocol: VpnProtocol;
  port: number;
  settings: unknown;
}

export interface OutboundRow {
  tag: string;
  protocol: string;
  settings: Record<string, unknown>;
  position: number;
}

export interface RuleRow {
  position: number;
  rule: Record<string, unknown>;
}
