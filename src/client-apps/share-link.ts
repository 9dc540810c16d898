import { isIPv6 } from 'node:net';
import type { ClientSecurity, ClientTransport, Connection } from './connection.ts';
import { linkExtra } from './link-extra.ts';
import { vmessCipher } from './vmess-cipher.ts';

type Of<P extends Connection['protocol']> = Extract<Connection, { protocol: P }>;

/**
 * Writes the share link of a connection: a URI that client apps take. It is the form that most of them
 * read; `otherShareLinks` has what else there is.
 */
export function shareLink(connection: Connection): string {
  switch (connection.protocol) {
    case 'VLESS':
      return vlessLink(connection);
    case 'VMESS':
      return vmessLink(connection);
    case 'TROJAN':
      return trojanLink(connection);
    case 'SHADOWSOCKS':
      return shadowsocksLink(connection);
    case 'HYSTERIA2':
      return hysteriaLink(connection);
    case 'MTPROTO':
      return telegramLink(connection);
  }
}

/** Other forms of the same share link, for apps that do not read the first. Only VMess has one. */
export function otherShareLinks(connection: Connection): string[] {
  return connection.protocol === 'VMESS' ? [vmessUri(connection)] : [];
}

/** https://github.com/XTLS/Xray-core/discussions/716 */
function vlessLink(connection: Of<'VLESS'>): string {
  const { uuid, flow, encryption = 'none', security } = connection;
  const reality = security.kind === 'reality' ? security : undefined;
  return uri('vless', encodeURIComponent(uuid), connection, [
    ['encryption', encryption],
    ...streamQuery(connection),
    ['flow', flow],
    ['sni', reality?.serverName],
    ['fp', reality?.fingerprint],
    ['pbk', reality?.publicKey],
    ['sid', reality?.shortId],
    ['pqv', reality?.mldsa65Verify],
  ]);
}

/** Client apps read the same query as for VLESS; the user is the password. */
function trojanLink(connection: Of<'TROJAN'>): string {
  const user = encodeURIComponent(connection.password);
  return uri('trojan', user, connection, streamQuery(connection));
}

/** https://github.com/XTLS/Xray-core/discussions/716: the URI form, which few apps read. */
function vmessUri(connection: Of<'VMESS'>): string {
  const query: Query = [['encryption', vmessCipher], ...streamQuery(connection)];
  return uri('vmess', encodeURIComponent(connection.uuid), connection, query);
}

/** https://github.com/2dust/v2rayN/wiki/Description-of-VMess-share-link */
function vmessLink({ name, host, port, uuid, transport, security }: Of<'VMESS'>): string {
  const tls = security.kind === 'tls' ? security : undefined;
  const fields = {
    v: '2',
    ps: name,
    add: host,
    port: String(port),
    id: uuid,
    aid: '0',
    scy: vmessCipher,
    net: networkName(transport),
    type: modeOf(transport) ?? 'none',
    host: hostOf(transport) ?? '',
    path: 'path' in transport ? transport.path : serviceNameOf(transport),
    tls: security.kind === 'none' ? '' : security.kind,
    sni: tls?.serverName ?? '',
    // mihomo takes an empty value for a list with an empty name in it, and connects nowhere.
    ...(tls?.alpn === undefined ? {} : { alpn: tls.alpn.join(',') }),
    fp: tls?.fingerprint ?? '',
    ...(tls?.pins === undefined ? {} : { pcs: tls.pins.join(',') }),
    ...(transport.network === 'xhttp' && transport.extra !== undefined
      ? { extra: linkExtra(transport.extra) }
      : {}),
  };
  return `vmess://${Buffer.from(JSON.stringify(fields)).toString('base64')}`;
}

/** https://shadowsocks.org/doc/sip002.html: with a 2022 method the user part is not base64. */
function shadowsocksLink(connection: Of<'SHADOWSOCKS'>): string {
  const { method, password } = connection;
  return uri('ss', `${method}:${encodeURIComponent(password)}`, connection, []);
}

/** https://v2.hysteria.network/docs/developers/URI-Scheme */
function hysteriaLink(connection: Of<'HYSTERIA2'>): string {
  const { password, serverName, pins, obfs } = connection;
  const query: Query = [
    ['sni', serverName],
    ['obfs', obfs?.type],
    ['obfs-password', obfs?.password],
    ['pinSHA256', pins?.join(',')],
  ];
  return uri('hysteria2', hysteriaUser(password), connection, query, '/');
}

/**
 * A password like `user:password` is the user part of the URI as it is: mihomo does not decode its colon. A colon
 * at an end is encoded, because many parsers cannot tell an empty part from none.
 */
function hysteriaUser(password: string): string {
  const colon = password.indexOf(':');
  if (colon <= 0 || colon === password.length - 1) return encodeURIComponent(password);
  const [user, rest] = [password.slice(0, colon), password.slice(colon + 1)];
  return `${encodeURIComponent(user)}:${encodeURIComponent(rest)}`;
}

/** https://core.telegram.org/api/links#mtproxy-links */
function telegramLink({ host, port, secret }: Of<'MTPROTO'>): string {
  return `tg://proxy?server=${encodeURIComponent(host)}&port=${port}&secret=${secret}`;
}

type Query = readonly (readonly [key: string, value: string | undefined])[];

/** `security` is written even if it is `none`, because apps have different defaults. */
function streamQuery(stream: { transport: ClientTransport; security: ClientSecurity }): Query {
  const { transport, security } = stream;
  const tls = security.kind === 'tls' ? security : undefined;
  return [
    ['type', networkName(transport)],
    ['security', security.kind],
    ['path', 'path' in transport ? transport.path : undefined],
    ['host', transport.network === 'grpc' ? undefined : hostOf(transport)],
    ['mode', modeOf(transport)],
    [
      'extra',
      transport.network === 'xhttp' && transport.extra !== undefined
        ? linkExtra(transport.extra)
        : undefined,
    ],
    ['authority', transport.network === 'grpc' ? transport.host : undefined],
    ['serviceName', transport.network === 'grpc' ? transport.serviceName : undefined],
    ['sni', tls?.serverName],
    ['fp', tls?.fingerprint],
    ['alpn', tls?.alpn?.join(',')],
    ['pcs', tls?.pins?.join(',')],
  ];
}

/** Share links use the old name of Xray's `raw`. */
function networkName({ network }: ClientTransport): string {
  return network === 'raw' ? 'tcp' : network;
}

function hostOf(transport: ClientTransport): string | undefined {
  return 'host' in transport ? transport.host : undefined;
}

function modeOf(transport: ClientTransport): string | undefined {
  if (transport.network === 'grpc') return 'gun';
  return transport.network === 'xhttp' ? transport.mode : undefined;
}

function serviceNameOf(transport: ClientTransport): string {
  return transport.network === 'grpc' ? transport.serviceName : '';
}

/** @param user already percent-encoded. */
function uri(
  scheme: string,
  user: string,
  connection: { host: string; port: number; name: string },
  query: Query,
  path = '',
): string {
  const host = isIPv6(connection.host) ? `[${connection.host}]` : connection.host;
  const pairs = query
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${encodeURIComponent(value ?? '')}`);
  const search = pairs.length === 0 ? '' : `?${pairs.join('&')}`;
  const fragment = encodeURIComponent(connection.name);
  return `${scheme}://${user}@${host}:${connection.port}${path}${search}#${fragment}`;
}
