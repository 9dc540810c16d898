import { isIP } from 'node:net';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { credentialUuid } from '../protocols/credential.ts';
import { type ProtocolSettings, parseProtocolSettings } from '../protocols/settings.ts';
import { shadowsocksUserKey } from '../protocols/shadowsocks-key.ts';
import { mtProtoSecret } from '../render/mtproto.ts';

/** Where a client app reaches a protocol, and with which credential. */
export interface Place {
  /** The credential of the link: any text. */
  credential: string;
  /** Host name or address, IPv6 without brackets. */
  host: string;
  port: number;
  /** What a client app calls the connection. */
  name: string;
}

/** How the bytes of a stream protocol travel. `path` and `host` are those of HTTP. */
export type ClientTransport =
  | { network: 'raw' }
  | { network: 'ws'; path: string; host?: string | undefined }
  | { network: 'grpc'; serviceName: string }
  | { network: 'xhttp'; path: string; mode: string; host?: string | undefined };

/** How a client app checks the server and hides what it does. */
export type ClientSecurity =
  | { kind: 'none' }
  | {
      kind: 'tls';
      /** Undefined if the server is only known by an address. */
      serverName?: string | undefined;
      alpn?: readonly string[] | undefined;
      fingerprint: string;
    }
  | {
      kind: 'reality';
      serverName: string;
      publicKey: string;
      shortId: string;
      fingerprint: string;
    };

/**
 * What a client app needs to connect: a protocol's settings as a client sees them, without what only the
 * server knows. Each format for client apps (share link, mihomo, sing-box) is written from it.
 */
export type Connection = { name: string; host: string; port: number } & (
  | {
      protocol: 'VLESS';
      uuid: string;
      flow?: string | undefined;
      transport: ClientTransport;
      security: ClientSecurity;
    }
  | { protocol: 'VMESS'; uuid: string; transport: ClientTransport; security: ClientSecurity }
  | { protocol: 'TROJAN'; password: string; transport: ClientTransport; security: ClientSecurity }
  | { protocol: 'SHADOWSOCKS'; method: string; password: string; network: string }
  | { protocol: 'HYSTERIA2'; password: string; serverName?: string | undefined }
  | { protocol: 'MTPROTO'; secret: string }
);

/** What client apps say they are in the TLS handshake. */
const fingerprint = 'chrome';

/**
 * Says how a client app connects.
 * @param settings as stored with the protocol.
 * @throws CoreError INVALID_ARGUMENT for settings that Core would not have stored.
 */
export function connectionOf(protocol: VpnProtocol, settings: unknown, place: Place): Connection {
  const { name, host, port, credential } = place;
  const common = { name, host, port };
  switch (protocol) {
    case 'VLESS': {
      const given = parseProtocolSettings('VLESS', settings);
      return {
        ...common,
        protocol,
        uuid: credentialUuid(credential),
        flow: given.flow,
        ...streamOf(given, place),
      };
    }
    case 'VMESS': {
      const given = parseProtocolSettings('VMESS', settings);
      return { ...common, protocol, uuid: credentialUuid(credential), ...streamOf(given, place) };
    }
    case 'TROJAN': {
      const given = parseProtocolSettings('TROJAN', settings);
      return { ...common, protocol, password: credential, ...streamOf(given, place) };
    }
    case 'SHADOWSOCKS':
      return { ...common, protocol, ...shadowsocksOf(settings, credential) };
    case 'HYSTERIA2': {
      const { tls } = parseProtocolSettings('HYSTERIA2', settings);
      return { ...common, protocol, password: credential, serverName: serverNameOf(tls, place) };
    }
    case 'MTPROTO':
      return { ...common, protocol, secret: telegramSecret(settings, credential) };
  }
}

type StreamSettings = ProtocolSettings['VLESS'] | ProtocolSettings['TROJAN'];

function streamOf(
  settings: StreamSettings,
  place: Place,
): { transport: ClientTransport; security: ClientSecurity } {
  return { transport: transportOf(settings), security: securityOf(settings, place) };
}

function transportOf({ ws, grpc, xhttp }: StreamSettings): ClientTransport {
  if (ws !== undefined) return { network: 'ws', path: ws.path, host: ws.host };
  if (grpc !== undefined) return { network: 'grpc', serviceName: grpc.serviceName };
  if (xhttp === undefined) return { network: 'raw' };
  return { network: 'xhttp', path: xhttp.path, mode: xhttp.mode, host: xhttp.host };
}

function securityOf(settings: StreamSettings, place: Place): ClientSecurity {
  const { tls } = settings;
  if (tls !== undefined) {
    return { kind: 'tls', serverName: serverNameOf(tls, place), alpn: tls.alpn, fingerprint };
  }
  if (!('reality' in settings) || settings.reality === undefined) return { kind: 'none' };
  const { serverNames, publicKey, shortIds } = settings.reality;
  const [serverName, shortId] = [serverNames?.[0], shortIds?.[0]];
  if (serverName === undefined || publicKey === undefined || shortId === undefined) {
    const message = 'Stored REALITY settings lack their server names, key or short ids';
    throw new CoreError('INVALID_ARGUMENT', message);
  }
  return { kind: 'reality', serverName, publicKey, shortId, fingerprint };
}

function shadowsocksOf(
  settings: unknown,
  credential: string,
): { method: string; password: string; network: string } {
  const { method, serverKey, network } = parseProtocolSettings('SHADOWSOCKS', settings);
  if (serverKey === undefined) {
    throw new CoreError('INVALID_ARGUMENT', 'Stored Shadowsocks settings lack their server key');
  }
  const userKey = shadowsocksUserKey(method, serverKey, credential);
  return { method, password: `${serverKey}:${userKey}`, network };
}

/**
 * https://core.telegram.org/api/links#mtproxy-links. The first byte of the secret says how a client
 * connects: `ee` as TLS to the domain that follows, `dd` with random padding, nothing without either.
 * It is the least conspicuous of the modes that are on.
 */
function telegramSecret(settings: unknown, credential: string): string {
  const { modes, tlsDomain } = parseProtocolSettings('MTPROTO', settings);
  const plain = mtProtoSecret(credentialUuid(credential));
  if (modes.tls) return `ee${plain}${Buffer.from(tlsDomain).toString('hex')}`;
  return modes.secure ? `dd${plain}` : plain;
}

/**
 * The server name for TLS: the certificate's if it is set, otherwise the host if that is not an address.
 */
function serverNameOf(tls: { serverName?: string | undefined }, place: Place): string | undefined {
  return tls.serverName ?? (isIP(place.host) === 0 ? place.host : undefined);
}
