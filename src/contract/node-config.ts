/** What a node is told to run: the 200 of GET /node/config/latest. */
export interface NodeConfig {
  revision: number;
  /** From the UUID of a subscription link to whom its traffic belongs. */
  clientMap: Record<string, { userId: number; subscriptionId: number | null }>;
  services: { xray?: XrayServiceConfig; mtproto?: MtProtoServiceConfig };
}

/** The node's Xray inbounds, routing and outbounds, with Xray's own field names. */
export interface XrayServiceConfig {
  inbounds: XrayInbound[];
  outbounds: XrayOutbound[];
  routing: { domainStrategy: string; rules: Record<string, unknown>[] };
  policy: Record<string, unknown>;
  stats: Record<string, never>;
}

export interface XrayInbound {
  tag: string;
  listen: string;
  port: number;
  protocol: string;
  settings: Record<string, unknown>;
  streamSettings: Record<string, unknown>;
  sniffing?: Record<string, unknown>;
}

export interface XrayOutbound {
  tag: string;
  protocol: string;
  settings: Record<string, unknown>;
}

/** The MTProto inbounds for telemt. */
export interface MtProtoServiceConfig {
  inbounds: MtProtoInbound[];
}

export interface MtProtoInbound {
  tag: string;
  listen: string;
  port: number;
  publicHost: string;
  publicPort: number;
  tlsDomain: string;
  modes: { classic: boolean; secure: boolean; tls: boolean };
  adTag?: string;
  /** `name` is the link's UUID; `secret` is 32 hex digits. */
  users: { name: string; secret: string }[];
}
