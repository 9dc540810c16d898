/** The protocols that a node can serve, in the order of their numbers in ClickHouse (from 1). */
export const vpnProtocols = [
  'VLESS',
  'VMESS',
  'TROJAN',
  'SHADOWSOCKS',
  'HYSTERIA2',
  'MTPROTO',
] as const;
export type VpnProtocol = (typeof vpnProtocols)[number];

/** The session events, in the order of their numbers in ClickHouse (from 1). */
export const sessionEventTypes = ['ONLINE', 'OFFLINE'] as const;
