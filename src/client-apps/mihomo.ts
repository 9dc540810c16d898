import { Document } from 'yaml';
import type { ClientSecurity, ClientTransport, Connection } from './connection.ts';
import { type LeftOut, leftOut, type Profile, type Written, writeAll } from './profile.ts';

type Of<P extends Connection['protocol']> = Extract<Connection, { protocol: P }>;

const selector = 'Proxy';
const fastest = 'Auto';
/** Names that mihomo or this profile gives a meaning. */
const reserved = [
  selector,
  fastest,
  'DIRECT',
  'REJECT',
  'REJECT-DROP',
  'PASS',
  'COMPATIBLE',
  'GLOBAL',
];

/** Networks that are never reached through a proxy. */
const privateNetworks = [
  '127.0.0.0/8',
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '169.254.0.0/16',
  '::1/128',
  'fc00::/7',
  'fe80::/10',
];

/**
 * A whole profile for mihomo and the apps on it (Clash Verge, FlClash, Clash Meta, Stash). A comment at its
 * head names the connections that are left out. https://wiki.metacubex.one/en/config/proxies/
 */
export function mihomoProfile(connections: readonly Connection[]): Profile {
  const { proxies, names, leftOut } = writeAll(connections, reserved, proxyOf);
  const profile = {
    'mixed-port': 7890,
    mode: 'rule',
    'log-level': 'warning',
    proxies,
    'proxy-groups': groupsOf(names),
    rules: [
      ...privateNetworks.map(
        (network) =>
          `${network.includes(':') ? 'IP-CIDR6' : 'IP-CIDR'},${network},DIRECT,no-resolve`,
      ),
      `MATCH,${names.length === 0 ? 'DIRECT' : selector}`,
    ],
  };
  const document = new Document(profile, { aliasDuplicateObjects: false });
  document.commentBefore = commentOf(leftOut);
  // mihomo reads YAML 1.1 in part, so a password like 12_34 without quotes would be a number.
  const text = document.toString({
    lineWidth: 0,
    defaultStringType: 'QUOTE_DOUBLE',
    defaultKeyType: 'PLAIN',
  });
  return { text, leftOut };
}

function groupsOf(names: readonly string[]): object[] {
  if (names.length === 0) return [];
  const url = 'https://www.gstatic.com/generate_204';
  return [
    { name: selector, type: 'select', proxies: [fastest, ...names] },
    { name: fastest, type: 'url-test', url, interval: 300, proxies: names },
  ];
}

function commentOf(left: readonly LeftOut[]): string | null {
  if (left.length === 0) return null;
  return [' Left out:', ...left.map(({ name, why }) => `   ${name}: ${why}`)].join('\n');
}

function proxyOf(connection: Connection): Written {
  if ('transport' in connection) {
    const { transport } = connection;
    if (transport.network === 'grpc' && transport.serviceName.includes('/')) {
      return leftOut('mihomo has no gRPC service names with a slash');
    }
  }
  switch (connection.protocol) {
    case 'VLESS':
      return vless(connection);
    case 'VMESS':
      return vmess(connection);
    case 'TROJAN':
      return trojan(connection);
    case 'SHADOWSOCKS':
      return shadowsocks(connection);
    case 'HYSTERIA2':
      return hysteria(connection);
    case 'MTPROTO':
      return leftOut('mihomo has no MTProto');
  }
}

function vless(connection: Of<'VLESS'>): Written {
  const { uuid, flow, transport, security } = connection;
  return written(connection, 'vless', {
    uuid,
    udp: true,
    flow,
    ...tlsFields(security, 'servername'),
    ...transportFields(transport),
  });
}

function vmess(connection: Of<'VMESS'>): Written {
  const { uuid, transport, security } = connection;
  if (transport.network === 'xhttp') return leftOut('mihomo has XHTTP with VLESS only');
  return written(connection, 'vmess', {
    uuid,
    alterId: 0,
    cipher: 'auto',
    udp: true,
    'packet-encoding': 'xudp',
    ...tlsFields(security, 'servername'),
    ...transportFields(transport),
  });
}

function trojan(connection: Of<'TROJAN'>): Written {
  const { password, transport, security } = connection;
  if (transport.network === 'xhttp') return leftOut('mihomo has XHTTP with VLESS only');
  if (security.kind === 'none') return leftOut('mihomo has Trojan with TLS only');
  const { tls: _always, ...fields } = tlsFields(security, 'sni');
  return written(connection, 'trojan', {
    password,
    udp: true,
    ...fields,
    ...transportFields(transport),
  });
}

function shadowsocks(connection: Of<'SHADOWSOCKS'>): Written {
  const { method, password, network } = connection;
  if (network === 'udp') return leftOut('mihomo has Shadowsocks with TCP only');
  return written(connection, 'ss', { cipher: method, password, udp: network !== 'tcp' });
}

function hysteria(connection: Of<'HYSTERIA2'>): Written {
  const { password, serverName } = connection;
  return written(connection, 'hysteria2', { password, sni: serverName, alpn: ['h3'] });
}

function written(connection: Connection, type: string, fields: object): Written {
  const { name, host, port } = connection;
  return {
    outcome: 'written',
    proxy: withoutUndefined({ name, type, server: host, port, ...fields }),
  };
}

function tlsFields(
  security: ClientSecurity,
  nameField: 'servername' | 'sni',
): Record<string, unknown> {
  if (security.kind === 'none') return {};
  const common = {
    tls: true,
    [nameField]: security.serverName,
    'client-fingerprint': security.fingerprint,
  };
  if (security.kind === 'tls') return { ...common, alpn: security.alpn };
  const { publicKey, shortId } = security;
  return { ...common, 'reality-opts': { 'public-key': publicKey, 'short-id': shortId } };
}

function transportFields(transport: ClientTransport): object {
  switch (transport.network) {
    case 'raw':
      return { network: 'tcp' };
    case 'ws': {
      const { path, host } = transport;
      const headers = host === undefined ? undefined : { Host: host };
      return { network: 'ws', 'ws-opts': withoutUndefined({ path, headers }) };
    }
    case 'grpc':
      return { network: 'grpc', 'grpc-opts': { 'grpc-service-name': transport.serviceName } };
    case 'xhttp': {
      const { path, host, mode } = transport;
      return { network: 'xhttp', 'xhttp-opts': withoutUndefined({ path, host, mode }) };
    }
  }
}

function withoutUndefined(given: object): object {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}
