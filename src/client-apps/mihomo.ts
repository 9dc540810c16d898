import { Document } from 'yaml';
import type { ClientSecurity, ClientTransport, Connection } from './connection.ts';
import { extraFields, whyNoExtra } from './mihomo-xhttp.ts';
import {
  alpnOf,
  hasOwnGrpcHost,
  hasSecondSignature,
  type LeftOut,
  leftOut,
  type Profile,
  type Written,
  writeAll,
} from './profile.ts';
import { vmessCipher } from './vmess-cipher.ts';

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
  const unsaid = whyUnsaid(connection);
  if (unsaid !== undefined) return leftOut(unsaid);
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

/** Why mihomo could not connect, whatever the protocol. Undefined if it can. */
function whyUnsaid(connection: Connection): string | undefined {
  if (pinsOf(connection).length > 1) return 'mihomo has one pin of a certificate at most';
  if (!('transport' in connection)) return undefined;
  const { transport, security } = connection;
  if (hasSecondSignature(security)) return 'mihomo has no ML-DSA-65 of REALITY';
  if (transport.network === 'grpc') {
    if (transport.serviceName.includes('/')) {
      return 'mihomo has no gRPC service names with a slash';
    }
    if (hasOwnGrpcHost(transport, security)) return 'mihomo has no gRPC host of its own';
  }
  return transport.network === 'xhttp' ? whyNoExtra(transport.extra) : undefined;
}

function pinsOf(connection: Connection): readonly string[] {
  if (connection.protocol === 'HYSTERIA2') return connection.pins ?? [];
  if (!('security' in connection) || connection.security.kind !== 'tls') return [];
  return connection.security.pins ?? [];
}

function vless(connection: Of<'VLESS'>): Written {
  const { uuid, flow, encryption, transport } = connection;
  return written(connection, 'vless', {
    uuid,
    udp: true,
    flow,
    encryption,
    ...tlsFields(connection, 'servername'),
    ...transportFields(transport),
  });
}

function vmess(connection: Of<'VMESS'>): Written {
  const { uuid, transport } = connection;
  if (transport.network === 'xhttp') return leftOut('mihomo has XHTTP with VLESS only');
  return written(connection, 'vmess', {
    uuid,
    alterId: 0,
    cipher: vmessCipher,
    udp: true,
    'packet-encoding': 'xudp',
    ...tlsFields(connection, 'servername'),
    ...transportFields(transport),
  });
}

function trojan(connection: Of<'TROJAN'>): Written {
  const { password, transport, security } = connection;
  if (transport.network === 'xhttp') return leftOut('mihomo has XHTTP with VLESS only');
  if (security.kind === 'none') return leftOut('mihomo has Trojan with TLS only');
  const { tls: _always, ...fields } = tlsFields(connection, 'sni');
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
  const { password, serverName, pins, obfs } = connection;
  return written(connection, 'hysteria2', {
    password,
    sni: serverName,
    alpn: ['h3'],
    fingerprint: pins?.[0],
    obfs: obfs?.type,
    'obfs-password': obfs?.password,
  });
}

function written(connection: Connection, type: string, fields: object): Written {
  const { name, host, port } = connection;
  return {
    outcome: 'written',
    proxy: withoutUndefined({ name, type, server: host, port, ...fields }),
  };
}

function tlsFields(
  { security, transport }: { security: ClientSecurity; transport: ClientTransport },
  nameField: 'servername' | 'sni',
): Record<string, unknown> {
  if (security.kind === 'none') return {};
  const common = {
    tls: true,
    [nameField]: security.serverName,
    'client-fingerprint': security.fingerprint,
  };
  if (security.kind === 'tls') {
    // mihomo's `fingerprint` is that of a certificate, not that of a client.
    return { ...common, alpn: alpnOf(transport, security), fingerprint: security.pins?.[0] };
  }
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
      const { path, host, mode, extra } = transport;
      const options = withoutUndefined({ path, host, mode, ...extraFields(extra) });
      return { network: 'xhttp', 'xhttp-opts': options };
    }
  }
}

function withoutUndefined(given: object): object {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}
