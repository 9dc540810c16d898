import { isIP, isIPv6 } from 'node:net';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { type ProtocolSettings, parseProtocolSettings } from '../protocols/settings.ts';
import { shadowsocksUserKey } from '../protocols/shadowsocks-key.ts';
import { mtProtoSecret } from '../render/mtproto.ts';

/** What a share link is made of besides the settings. */
interface Place {
  uuid: string;
  /** Host name or address, IPv6 without brackets. */
  host: string;
  port: number;
  /** What a client app calls the connection. */
  name: string;
}

/**
 * The URI that a client app takes for a link.
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

/** The same query as VLESS, which is how client apps read it; only the user is a password. */
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
 * is to connect: `ee` as TLS to the domain that follows, `dd` with random padding, none plainly. The
 * least conspicuous of the modes that are on is taken.
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

/** Where security is none it is said too: apps differ in what they take for the default. */
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

/** Share links know Xray's `raw` by the name it had before. */
function networkName(network: ProtocolSettings['VLESS']['network']): string {
  return network === 'raw' ? 'tcp' : network;
}

/** The name to ask for: the certificate's, else the host where that is a name and not an address. */
function serverNameOf(tls: { serverName?: string | undefined }, place: Place): string | undefined {
  return tls.serverName ?? (isIP(place.host) === 0 ? place.host : undefined);
}

/** @param user percent-encoded already where it needs to be. */
function uri(scheme: string, user: string, place: Place, query: Query, path = ''): string {
  const host = isIPv6(place.host) ? `[${place.host}]` : place.host;
  const pairs = query
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${encodeURIComponent(value ?? '')}`);
  const search = pairs.length === 0 ? '' : `?${pairs.join('&')}`;
  return `${scheme}://${user}@${host}:${place.port}${path}${search}#${encodeURIComponent(place.name)}`;
}
