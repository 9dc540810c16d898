import { isIP, isIPv6 } from 'node:net';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { type ProtocolSettings, parseProtocolSettings } from '../protocols/settings.ts';
import { shadowsocksUserKey } from '../protocols/shadowsocks-key.ts';
import { mtProtoSecret } from '../render/mtproto.ts';
import { hostSql, publicAddress } from '../render/public-address.ts';
import type { Queryable } from '../stores/postgres.ts';

interface LinkedProtocol {
  nodeId: number;
  nodeName: string;
  host: string;
  ip: string;
  protocol: VpnProtocol;
  port: number;
  settings: { publicHost?: string; publicPort?: number };
}

/**
 * The share link of a link: the URI for a client app. It exists even while the subscription has no
 * access.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if neither the node nor the protocol has an address.
 */
export async function showShareLink(db: Queryable, uuid: string): Promise<string> {
  const { rows } = await db.query<LinkedProtocol>(
    `SELECT n.id AS "nodeId", n.name AS "nodeName", ${hostSql} AS host, n.ip, p.protocol, p.port, p.settings
     FROM subscription_links l
     JOIN node_protocols p ON p.id = l.node_protocol_id
     JOIN nodes n ON n.id = p.node_id
     WHERE l.uuid = $1`,
    [uuid],
  );
  const row = rows[0];
  if (row === undefined) throw new CoreError('NOT_FOUND', `There is no link ${uuid}`);
  const { host, port } = publicAddress(row, row.port, row.settings);
  if (host === '') {
    throw new CoreError(
      'INVALID_ARGUMENT',
      `Node ${row.nodeId} has no host or address yet, and its protocol no publicHost. Register the node, or give it a host: core node set ${row.nodeId} --host NAME`,
    );
  }
  const name = `${row.nodeName} ${row.protocol}`;
  return shareLink(row.protocol, row.settings, { uuid, host, port, name });
}

/** What a share link holds in addition to the settings. */
interface Place {
  uuid: string;
  /** Host name or address, IPv6 without brackets. */
  host: string;
  port: number;
  /** What a client app calls the connection. */
  name: string;
}

/**
 * Writes a share link.
 * @param settings as stored with the protocol.
 * @throws CoreError INVALID_ARGUMENT for settings that Core would not have stored.
 */
export function shareLink(protocol: VpnProtocol, settings: unknown, place: Place): string {
  switch (protocol) {
    case 'VLESS':
      return vlessLink(parseProtocolSettings('VLESS', settings), place);
    case 'VMESS':
      return vmessLink(parseProtocolSettings('VMESS', settings), place);
    case 'TROJAN':
      return trojanLink(parseProtocolSettings('TROJAN', settings), place);
    case 'SHADOWSOCKS':
      return shadowsocksLink(parseProtocolSettings('SHADOWSOCKS', settings), place);
    case 'HYSTERIA2':
      return hysteriaLink(parseProtocolSettings('HYSTERIA2', settings), place);
    case 'MTPROTO':
      return telegramLink(parseProtocolSettings('MTPROTO', settings), place);
  }
}

/** https://github.com/XTLS/Xray-core/discussions/716 */
function vlessLink(settings: ProtocolSettings['VLESS'], place: Place): string {
  const { reality, flow } = settings;
  const query = [
    ['encryption', 'none'],
    ...transportQuery(settings, place),
    ...(flow === undefined ? [] : [['flow', flow]]),
    ...(reality === undefined
      ? []
      : [
          ['sni', reality.serverNames?.[0]],
          ['fp', 'chrome'],
          ['pbk', reality.publicKey],
          ['sid', reality.shortIds?.[0]],
        ]),
  ];
  return uri('vless', place.uuid, place, query);
}

/** Client apps read the same query as for VLESS; the user is the password. */
function trojanLink(settings: ProtocolSettings['TROJAN'], place: Place): string {
  return uri('trojan', place.uuid, place, transportQuery(settings, place));
}

/** https://github.com/2dust/v2rayN/wiki/Description-of-VMess-share-link */
function vmessLink(settings: ProtocolSettings['VMESS'], place: Place): string {
  const { ws, grpc, xhttp, tls } = settings;
  const host = ws?.host ?? xhttp?.host ?? '';
  const path = ws?.path ?? xhttp?.path ?? grpc?.serviceName ?? '';
  const fields = {
    v: '2',
    ps: place.name,
    add: place.host,
    port: String(place.port),
    id: place.uuid,
    aid: '0',
    scy: 'auto',
    net: networkName(settings.network),
    type: xhttp?.mode ?? (grpc === undefined ? 'none' : 'gun'),
    host,
    path,
    tls: settings.security === 'tls' ? 'tls' : '',
    sni: (tls && serverNameOf(tls, place)) ?? '',
    alpn: tls?.alpn?.join(',') ?? '',
    fp: tls === undefined ? '' : 'chrome',
  };
  return `vmess://${Buffer.from(JSON.stringify(fields)).toString('base64')}`;
}

/** https://shadowsocks.org/doc/sip002.html: with a 2022 method the user part is not base64. */
function shadowsocksLink(settings: ProtocolSettings['SHADOWSOCKS'], place: Place): string {
  const { method, serverKey } = settings;
  if (serverKey === undefined) {
    throw new CoreError('INVALID_ARGUMENT', 'Stored Shadowsocks settings lack their server key');
  }
  const password = `${serverKey}:${shadowsocksUserKey(method, serverKey, place.uuid)}`;
  return uri('ss', `${method}:${encodeURIComponent(password)}`, place, []);
}

/** https://v2.hysteria.network/docs/developers/URI-Scheme */
function hysteriaLink(settings: ProtocolSettings['HYSTERIA2'], place: Place): string {
  return uri('hysteria2', place.uuid, place, [['sni', serverNameOf(settings.tls, place)]], '/');
}

/**
 * https://core.telegram.org/api/links#mtproxy-links. The first byte of the secret says how a client
 * connects: `ee` as TLS to the domain that follows, `dd` with random padding, nothing without either.
 * The link uses the least conspicuous of the modes that are on.
 */
function telegramLink(settings: ProtocolSettings['MTPROTO'], place: Place): string {
  const { modes, tlsDomain } = settings;
  const plain = mtProtoSecret(place.uuid);
  let secret = plain;
  if (modes.tls) secret = `ee${plain}${Buffer.from(tlsDomain).toString('hex')}`;
  else if (modes.secure) secret = `dd${plain}`;
  return `tg://proxy?server=${encodeURIComponent(place.host)}&port=${place.port}&secret=${secret}`;
}

type Query = readonly (readonly (string | undefined)[])[];

/** `security` is written even if it is `none`, because apps have different defaults. */
function transportQuery(
  settings: ProtocolSettings['VLESS'] | ProtocolSettings['TROJAN'],
  place: Place,
): string[][] {
  const { ws, grpc, xhttp, tls } = settings;
  const query: (string | undefined)[][] = [
    ['type', networkName(settings.network)],
    ['security', settings.security],
    ['path', ws?.path ?? xhttp?.path],
    ['host', ws?.host ?? xhttp?.host],
    ['mode', xhttp?.mode ?? (grpc && 'gun')],
    ['serviceName', grpc?.serviceName],
    ['sni', tls && serverNameOf(tls, place)],
    ['fp', tls && 'chrome'],
    ['alpn', tls?.alpn?.join(',')],
  ];
  return query.filter((pair): pair is string[] => pair[1] !== undefined);
}

/** Share links use the old name of Xray's `raw`. */
function networkName(network: ProtocolSettings['VLESS']['network']): string {
  return network === 'raw' ? 'tcp' : network;
}

/**
 * The server name for TLS: the certificate's if it is set, otherwise the host if that is not an address.
 */
function serverNameOf(tls: { serverName?: string | undefined }, place: Place): string | undefined {
  return tls.serverName ?? (isIP(place.host) === 0 ? place.host : undefined);
}

/** @param user already percent-encoded. */
function uri(scheme: string, user: string, place: Place, query: Query, path = ''): string {
  const host = isIPv6(place.host) ? `[${place.host}]` : place.host;
  const pairs = query
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${encodeURIComponent(value ?? '')}`);
  const search = pairs.length === 0 ? '' : `?${pairs.join('&')}`;
  return `${scheme}://${user}@${host}:${place.port}${path}${search}#${encodeURIComponent(place.name)}`;
}
