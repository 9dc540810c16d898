import type { ClientSecurity, ClientTransport, Connection } from './connection.ts';
import {
  alpnOf,
  hasOwnGrpcHost,
  hasSecondSignature,
  leftOut,
  type Profile,
  type Written,
  writeAll,
} from './profile.ts';
import { vmessCipher } from './vmess-cipher.ts';

type Of<P extends Connection['protocol']> = Extract<Connection, { protocol: P }>;

const selector = 'Proxy';
const fastest = 'Auto';
const direct = 'direct';

/**
 * A whole profile for sing-box from version 1.12 on, and the apps on it (SFA, SFI, SFM, Karing, Hiddify).
 * https://sing-box.sagernet.org/configuration/
 */
export function singBoxProfile(connections: readonly Connection[]): Profile {
  const { proxies, names, leftOut } = writeAll(
    connections,
    [selector, fastest, direct],
    outboundOf,
  );
  const chosen = names.length === 0 ? direct : selector;
  const profile = {
    log: { level: 'warn' },
    dns: {
      servers: [
        // Without a detour the server would be asked directly, and with one to `direct` sing-box refuses it.
        {
          type: 'https',
          tag: 'remote',
          server: '1.1.1.1',
          ...(names.length > 0 ? { detour: selector } : {}),
        },
        { type: 'local', tag: 'local' },
      ],
      final: 'remote',
    },
    inbounds: [
      {
        type: 'tun',
        tag: 'tun',
        address: ['172.19.0.1/30', 'fdfe:dcba:9876::1/126'],
        auto_route: true,
        strict_route: true,
      },
      { type: 'mixed', tag: 'mixed', listen: '127.0.0.1', listen_port: 2080 },
    ],
    outbounds: [...groupsOf(names), ...proxies, { type: 'direct', tag: direct }],
    route: {
      rules: [
        { action: 'sniff' },
        { protocol: 'dns', action: 'hijack-dns' },
        { ip_is_private: true, action: 'route', outbound: direct },
      ],
      final: chosen,
      auto_detect_interface: true,
      // Names of nodes are looked up without a node.
      default_domain_resolver: 'local',
    },
    // Keeps the chosen node from one start to the next.
    experimental: { cache_file: { enabled: true } },
  };
  return { text: `${JSON.stringify(profile, null, 2)}\n`, leftOut };
}

function groupsOf(names: readonly string[]): object[] {
  if (names.length === 0) return [];
  return [
    { type: 'selector', tag: selector, outbounds: [fastest, ...names] },
    { type: 'urltest', tag: fastest, outbounds: names },
  ];
}

function outboundOf(connection: Connection): Written {
  switch (connection.protocol) {
    case 'VLESS': {
      const { uuid, flow, encryption } = connection;
      if (encryption !== undefined) return leftOut('sing-box has no encryption of VLESS');
      return overStream(connection, 'vless', { uuid, flow });
    }
    case 'VMESS': {
      const { uuid } = connection;
      const user = { uuid, security: vmessCipher, packet_encoding: 'xudp' };
      return overStream(connection, 'vmess', user);
    }
    case 'TROJAN':
      return overStream(connection, 'trojan', { password: connection.password });
    case 'SHADOWSOCKS': {
      const { method, password, network } = connection;
      const only = network === 'tcp,udp' ? {} : { network };
      return written(connection, 'shadowsocks', { method, password, ...only });
    }
    case 'HYSTERIA2': {
      const { password, serverName, pins, obfs } = connection;
      if (pins !== undefined) return leftOut(noPins);
      const tls = { enabled: true, server_name: serverName, alpn: ['h3'] };
      return written(connection, 'hysteria2', { password, obfs, tls });
    }
    case 'MTPROTO':
      return leftOut('sing-box has no MTProto');
  }
}

/** It pins public keys, and Core knows the hashes of whole certificates. */
const noPins = 'sing-box has no pins of certificates';

function overStream(
  connection: Of<'VLESS' | 'VMESS' | 'TROJAN'>,
  type: string,
  user: object,
): Written {
  const { transport, security } = connection;
  if (transport.network === 'xhttp') return leftOut('sing-box has no XHTTP');
  if (hasSecondSignature(security)) return leftOut('sing-box has no ML-DSA-65 of REALITY');
  if (security.kind === 'tls' && security.pins !== undefined) return leftOut(noPins);
  if (transport.network === 'grpc') {
    if (transport.serviceName.includes('/')) {
      return leftOut('sing-box has no gRPC service names with a slash');
    }
    if (hasOwnGrpcHost(transport, security)) return leftOut('sing-box has no gRPC host of its own');
  }
  const tls = tlsOf(security, transport);
  return written(connection, type, { ...user, tls, transport: transportOf(transport) });
}

/** JSON.stringify leaves out what is undefined. */
function written(connection: Connection, type: string, fields: object): Written {
  const { name, host, port } = connection;
  return {
    outcome: 'written',
    proxy: { type, tag: name, server: host, server_port: port, ...fields },
  };
}

function tlsOf(security: ClientSecurity, transport: ClientTransport): object | undefined {
  if (security.kind === 'none') return undefined;
  const { serverName, fingerprint } = security;
  const common = { enabled: true, server_name: serverName, utls: { enabled: true, fingerprint } };
  if (security.kind === 'tls') return { ...common, alpn: alpnOf(transport, security) };
  const { publicKey, shortId } = security;
  return { ...common, reality: { enabled: true, public_key: publicKey, short_id: shortId } };
}

function transportOf(
  transport: Exclude<ClientTransport, { network: 'xhttp' }>,
): object | undefined {
  switch (transport.network) {
    case 'raw':
      return undefined;
    case 'ws': {
      const { path, host } = transport;
      return { type: 'ws', path, ...(host === undefined ? {} : { headers: { Host: host } }) };
    }
    case 'grpc':
      return { type: 'grpc', service_name: transport.serviceName };
  }
}
