import type { VpnProtocol } from '../contract/enums.ts';
import type { OutboundOptions } from '../protocols/outbound/outbound.ts';
import type { XraySettings } from '../protocols/routing/xray-settings.ts';
import type { CredentialText, LinkRecords } from './link-records.ts';

/** Everything that a node's configuration is rendered from, read at one moment. */
export interface NodeRows extends NodeSettings {
  node: {
    id: number;
    host: string;
    ip: string;
    revision: number;
    /** By the node's newest heartbeat; null if it says nothing of it. */
    xrayVersion?: string | null;
  };
  /** Only the links of active subscriptions that have not expired. */
  links: LinkRecords[];
  /** The credentials of these links that are no UUIDs. Absent if there are none. */
  credentialTexts?: CredentialText[];
}

/** A node's settings: the rows that a rollback takes from an earlier revision. */
export interface NodeSettings {
  protocols: ProtocolRow[];
  /** Only the outbounds that an operator configured. */
  outbounds: OutboundRow[];
  rules: RuleRow[];
  /** What the node's Xray has beside these. Absent in the settings of revisions before Core had it. */
  xray?: XraySettings;
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
  /** Absent if it has none. */
  options?: OutboundOptions;
  position: number;
}

export interface RuleRow {
  position: number;
  rule: Record<string, unknown>;
}
