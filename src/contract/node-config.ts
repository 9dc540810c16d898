/** What a node is told to run: the 200 of GET /node/config/latest. */
export interface NodeConfig {
  revision: number;
  /** From the UUID of a subscription link to whom its traffic belongs. */
  clientMap: Record<string, { userId: number; subscriptionId: number | null }>;
  services: { xray?: XrayServiceConfig; mtproto?: MtProtoServiceConfig };
}

/**
 * The node's Xray inbounds, routing and outbounds, with the field names of Xray 26. Where Xray
 * renamed a field and still reads the old name (`network`, `clients`), the name that its last
 * stable release knows is used.
 */
export interface XrayServiceConfig {
  inbounds: XrayInbound[];
  outbounds: XrayOutbound[];
  routing: { domainStrategy: string; rules: Record<string, unknown>[] };
  policy: XrayPolicy;
  stats: Record<string, never>;
}

export interface XrayInbound {
  tag: string;
  listen: string;
  port: number;
  protocol: 'vless' | 'trojan';
  settings: VlessInboundSettings | TrojanInboundSettings;
  streamSettings: XrayStreamSettings;
  sniffing?: { enabled: boolean; destOverride: string[]; routeOnly: boolean };
}

/** `id` and `email` are the link's UUID, and `email` is what Xray names its counters by. */
export interface VlessInboundSettings {
  clients: { id: string; email: string; flow?: 'xtls-rprx-vision' }[];
  decryption: 'none';
}

/** `password` and `email` are the link's UUID. */
export interface TrojanInboundSettings {
  clients: { password: string; email: string }[];
}

export interface XrayStreamSettings {
  network: 'raw' | 'ws' | 'grpc' | 'xhttp';
  security: 'none' | 'tls' | 'reality';
  wsSettings?: { path: string; host?: string };
  grpcSettings?: { serviceName: string };
  xhttpSettings?: { path: string; mode: string; host?: string };
  tlsSettings?: {
    certificates: { certificateFile: string; keyFile: string }[];
    serverName?: string;
  };
  realitySettings?: {
    target: string;
    serverNames: string[];
    privateKey: string;
    shortIds: string[];
  };
}

export interface XrayOutbound {
  tag: string;
  protocol: string;
  settings: Record<string, unknown>;
}

export interface XrayPolicy {
  levels: Record<string, Record<string, boolean>>;
  system: Record<string, boolean>;
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
  /** `name` is the link's UUID; `secret` its 32 hex digits, without the dashes. */
  users: { name: string; secret: string }[];
}
