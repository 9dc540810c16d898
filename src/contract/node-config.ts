/** What a node is told to run: the 200 of GET /node/config/latest. */
export interface NodeConfig {
  revision: number;
  /** Maps the UUID of a link to the user and subscription that its traffic belongs to. */
  clientMap: Record<string, { userId: number; subscriptionId: number | null }>;
  services: { xray?: XrayServiceConfig; mtproto?: MtProtoServiceConfig };
}

/**
 * The node's Xray inbounds, routing and outbounds, with the field names of Xray 26. Xray has renamed some
 * fields and still reads the old names (`network` for `method`, `clients` for `users`). Core uses the name
 * that Xray's last stable release knows. The pages are https://xtls.github.io/en/config/ and below;
 * test/golden/README.md names one for every block.
 */
export interface XrayServiceConfig {
  /**
   * Variables of Xray's environment by their names in Xray: `xray.buf.splice`. Xray reads them here from
   * 26.7.11 on. An agent starts an older one with them: XRAY_BUF_SPLICE.
   */
  env?: Record<string, string>;
  inbounds: XrayInbound[];
  /** The first one takes the traffic that no rule matches. */
  outbounds: XrayOutbound[];
  routing: {
    domainStrategy: string;
    rules: Record<string, unknown>[];
    balancers?: Record<string, unknown>[];
  };
  policy: XrayPolicy;
  stats: Record<string, never>;
  api: XrayApi;
  dns?: Record<string, unknown>;
  observatory?: Record<string, unknown>;
  burstObservatory?: Record<string, unknown>;
  /** `raw` of an operator may have any other block of Xray's. */
  [block: string]: unknown;
}

/**
 * `tag` is `in-` and the nodeProtocolId. `listen` is an address, or a unix socket: `/path`, `/path,0660`
 * or `@name`. Then nothing listens on the port.
 */
export interface XrayInboundPlace {
  tag: string;
  listen: string;
  port: number;
  sniffing?: { enabled: boolean; destOverride: string[]; routeOnly: boolean };
}

/**
 * In every client `email` is the link's UUID: Xray names its counters by it. It is no secret. The credential,
 * which the client app holds, is another value.
 */
export type XrayInbound = XrayInboundPlace &
  (
    | { protocol: 'vless'; settings: VlessInboundSettings; streamSettings: XrayStreamSettings }
    | { protocol: 'vmess'; settings: VmessInboundSettings; streamSettings: XrayStreamSettings }
    | { protocol: 'trojan'; settings: TrojanInboundSettings; streamSettings: XrayStreamSettings }
    | { protocol: 'shadowsocks'; settings: ShadowsocksInboundSettings }
    | { protocol: 'hysteria'; settings: HysteriaInboundSettings; streamSettings: HysteriaStream }
  );

/** `id` is the credential as a UUID. `decryption` is `none` or the server's text of `xray vlessenc`. */
interface VlessInboundSettings {
  clients: { id: string; email: string; flow?: 'xtls-rprx-vision' }[];
  decryption: string;
  fallbacks?: XrayFallback[];
}

/** Where a connection goes that is not of this protocol. */
export interface XrayFallback {
  name?: string | undefined;
  alpn?: string | undefined;
  path?: string | undefined;
  dest: string | number;
  xver?: number | undefined;
}

/** `id` is the credential as a UUID. */
interface VmessInboundSettings {
  clients: { id: string; email: string }[];
}

/** `password` is the credential, which may be any text. */
interface TrojanInboundSettings {
  clients: { password: string; email: string }[];
  fallbacks?: XrayFallback[];
}

/** Shadowsocks 2022: keys in base64, one of the server and one of each client. `clients` is not empty. */
interface ShadowsocksInboundSettings {
  method: '2022-blake3-aes-128-gcm' | '2022-blake3-aes-256-gcm';
  password: string;
  clients: { password: string; email: string }[];
  network: 'tcp,udp' | 'tcp' | 'udp';
}

/** Hysteria2. `auth` is the credential, which may be any text. `clients` is not empty. */
interface HysteriaInboundSettings {
  version: 2;
  clients: { auth: string; email: string }[];
}

export interface XrayStreamSettings {
  network: 'raw' | 'ws' | 'grpc' | 'xhttp';
  security: 'none' | 'tls' | 'reality';
  wsSettings?: { path: string; host?: string };
  grpcSettings?: { serviceName: string };
  xhttpSettings?: { path: string; mode: string; host?: string; extra?: Record<string, unknown> };
  tlsSettings?: XrayTlsSettings;
  realitySettings?: {
    target: string;
    serverNames: string[];
    privateKey: string;
    shortIds: string[];
    minClientVer?: string | undefined;
    maxClientVer?: string | undefined;
    /** Milliseconds. */
    maxTimeDiff?: number | undefined;
    xver?: number | undefined;
    mldsa65Seed?: string | undefined;
  };
  sockopt?: Record<string, unknown>;
}

export interface HysteriaStream {
  network: 'hysteria';
  security: 'tls';
  hysteriaSettings: {
    version: 2;
    udpIdleTimeout?: number;
    masquerade?: Record<string, unknown>;
  };
  tlsSettings: XrayTlsSettings;
  finalmask?: XrayFinalMask;
}

/** What Xray does to the packets of a transport. */
export interface XrayFinalMask {
  udp?: { type: 'salamander'; settings: { password: string } }[];
  quicParams?: { congestion: string; brutalUp?: string; brutalDown?: string };
}

export interface XrayTlsSettings {
  certificates: { certificateFile: string; keyFile: string }[];
  serverName?: string;
  alpn?: string[];
}

export interface XrayOutbound {
  tag: string;
  protocol: string;
  settings: Record<string, unknown>;
  sendThrough?: string;
  targetStrategy?: string;
  streamSettings?: Record<string, unknown>;
  mux?: Record<string, unknown>;
  proxySettings?: Record<string, unknown>;
}

export interface XrayPolicy {
  levels: Record<string, Record<string, boolean>>;
  system: Record<string, boolean>;
}

/**
 * Xray's gRPC interface on loopback, from which an agent reads the counters. Whoever can connect to it
 * can change what Xray runs, so an agent may move it to another port but never off loopback.
 */
export interface XrayApi {
  tag: string;
  listen: string;
  services: string[];
}

/** The MTProto inbounds for telemt. */
interface MtProtoServiceConfig {
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
  /** Never empty: telemt refuses to start without a user. */
  users: MtProtoUser[];
}

/**
 * `name` is the link's UUID, and `secret` is the credential as 32 hex digits. The other fields are
 * absent if there is no limit. They go to telemt's `user_max_tcp_conns`, `user_max_unique_ips` and
 * `user_expirations` in the section `access`.
 */
export interface MtProtoUser {
  name: string;
  secret: string;
  maxTcpConns?: number;
  maxUniqueIps?: number;
  /** When the subscription ends, in ISO 8601 and UTC. */
  expiresAt?: string;
}
