import { isIP } from 'node:net';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { isLocal } from '../protocols/addresses.ts';
import { credentialUuid } from '../protocols/credential.ts';
import type { QuicFace, StreamFace } from '../protocols/faces.ts';
import { type ProtocolSettings, parseProtocolSettings } from '../protocols/settings.ts';
import { shadowsocksUserKey } from '../protocols/shadowsocks-key.ts';
import { extraOfClient, pathOfClient } from '../protocols/xhttp.ts';
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
  /** `host` is the authority of the requests. */
  | { network: 'grpc'; serviceName: string; host?: string | undefined }
  | {
      network: 'xhttp';
      path: string;
      mode: string;
      host?: string | undefined;
      /** Further fields by Xray's names. */
      extra?: Record<string, unknown> | undefined;
    };

/** How a client app checks the server and hides what it does. */
export type ClientSecurity =
  | { kind: 'none' }
  | {
      kind: 'tls';
      /** Undefined if the server is only known by an address. */
      serverName?: string | undefined;
      alpn?: readonly string[] | undefined;
      fingerprint: string;
      /** SHA-256 of certificates to accept in place of one from an authority, in 64 hex digits. */
      pins?: readonly string[] | undefined;
    }
  | {
      kind: 'reality';
      serverName: string;
      publicKey: string;
      shortId: string;
      fingerprint: string;
      /** Verifies the second signature; 1,952 bytes in base64url. */
      mldsa65Verify?: string | undefined;
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
      /** VLESS' own encryption, as `xray vlessenc` prints it. Undefined if there is none. */
      encryption?: string | undefined;
      transport: ClientTransport;
      security: ClientSecurity;
    }
  | { protocol: 'VMESS'; uuid: string; transport: ClientTransport; security: ClientSecurity }
  | { protocol: 'TROJAN'; password: string; transport: ClientTransport; security: ClientSecurity }
  | { protocol: 'SHADOWSOCKS'; method: string; password: string; network: string }
  | {
      protocol: 'HYSTERIA2';
      password: string;
      serverName?: string | undefined;
      pins?: readonly string[] | undefined;
      obfs?: { type: 'salamander'; password: string } | undefined;
    }
  | { protocol: 'MTPROTO'; secret: string }
);

/** What client apps say they are in the TLS handshake if the settings do not say. */
const defaultFingerprint = 'chrome';

type Face = StreamFace & QuicFace;
type StreamSettings = ProtocolSettings['VLESS'] | ProtocolSettings['VMESS'];

/**
 * Says how a client app connects: one connection for each public face of the protocol, or a single one
 * if it has none.
 * @param settings as stored with the protocol.
 * @param place Host and port are those of a face that does not name its own.
 * @throws CoreError INVALID_ARGUMENT for settings that Core would not have stored.
 */
export function connectionsOf(
  protocol: VpnProtocol,
  settings: unknown,
  place: Place,
): [Connection, ...Connection[]] {
  const { faces = [] } = settings as { faces?: Face[] };
  const [first = {}, ...others] = faces;
  const named = (face: Face, index: number): Place => {
    const ofFace = face.name ?? (faces.length > 1 ? String(index + 1) : undefined);
    return {
      ...place,
      host: face.host ?? place.host,
      port: face.port ?? place.port,
      name: ofFace === undefined ? place.name : `${place.name} ${ofFace}`,
    };
  };
  return [
    connectionOf(protocol, settings, named(first, 0), first),
    ...others.map((face, at) => connectionOf(protocol, settings, named(face, at + 1), face)),
  ];
}

function connectionOf(
  protocol: VpnProtocol,
  settings: unknown,
  place: Place,
  face: Face,
): Connection {
  const { name, host, port, credential } = place;
  const common = { name, host, port };
  switch (protocol) {
    case 'VLESS': {
      const given = parseProtocolSettings('VLESS', settings);
      const { flow, encryption } = given;
      return {
        ...common,
        protocol,
        uuid: credentialUuid(credential),
        flow,
        encryption,
        ...streamOf(given, place, face),
      };
    }
    case 'VMESS': {
      const given = parseProtocolSettings('VMESS', settings);
      return {
        ...common,
        protocol,
        uuid: credentialUuid(credential),
        ...streamOf(given, place, face),
      };
    }
    case 'TROJAN': {
      const given = parseProtocolSettings('TROJAN', settings);
      return { ...common, protocol, password: credential, ...streamOf(given, place, face) };
    }
    case 'SHADOWSOCKS':
      return { ...common, protocol, ...shadowsocksOf(settings, credential) };
    case 'HYSTERIA2': {
      const { tls, pins, obfs } = parseProtocolSettings('HYSTERIA2', settings);
      const serverName = face.sni ?? serverNameOf(tls, host);
      const trusted = face.pins ?? pins;
      return { ...common, protocol, password: credential, serverName, pins: trusted, obfs };
    }
    case 'MTPROTO':
      return { ...common, protocol, secret: telegramSecret(settings, credential) };
  }
}

function streamOf(
  settings: StreamSettings,
  place: Place,
  face: Face,
): { transport: ClientTransport; security: ClientSecurity } {
  return {
    transport: transportOf(settings, face),
    security: securityOf(settings, place, face),
  };
}

function transportOf({ ws, grpc, xhttp }: StreamSettings, face: Face): ClientTransport {
  const { path, httpHost } = face;
  if (ws !== undefined) {
    return { network: 'ws', path: path ?? ws.path, host: httpHost ?? ws.host };
  }
  if (grpc !== undefined) {
    return { network: 'grpc', serviceName: grpc.serviceName, host: httpHost };
  }
  if (xhttp === undefined) return { network: 'raw' };
  return {
    network: 'xhttp',
    path: pathOfClient(path ?? xhttp.path, xhttp.extra),
    mode: xhttp.mode,
    host: httpHost ?? xhttp.host,
    extra: extraOfClient(xhttp.extra),
  };
}

function securityOf(settings: StreamSettings, place: Place, face: Face): ClientSecurity {
  const fingerprint = face.fingerprint ?? settings.fingerprint ?? defaultFingerprint;
  if ('reality' in settings && settings.reality !== undefined) {
    return realityOf(settings.reality, face, fingerprint);
  }
  if (!isOverTls(settings, place, face)) return { kind: 'none' };
  return {
    kind: 'tls',
    serverName: face.sni ?? serverNameOf(settings.tls ?? {}, place.host),
    alpn: face.alpn ?? settings.tls?.alpn,
    fingerprint,
    pins: face.pins ?? settings.pins,
  };
}

/**
 * Whether a client app speaks TLS. Only a proxy on the node reaches an inbound on a loopback address or
 * a unix socket. If the inbound has no TLS of its own, and no face says otherwise, that proxy ends the
 * TLS, unless clients reach it on the port of plain HTTP.
 */
function isOverTls(settings: StreamSettings, { port }: Place, face: Face): boolean {
  if (face.security !== undefined) return face.security === 'tls';
  if (settings.tls !== undefined) return true;
  const isPlainHttp = settings.network !== 'raw' && port === 80;
  const isEncrypted = 'decryption' in settings && settings.decryption !== undefined;
  return isLocal(settings.listen) && !isPlainHttp && !isEncrypted;
}

function realityOf(
  reality: NonNullable<ProtocolSettings['VLESS']['reality']>,
  face: Face,
  fingerprint: string,
): ClientSecurity {
  const { serverNames, publicKey, shortIds, mldsa65Verify } = reality;
  const [serverName, shortId] = [face.sni ?? serverNames?.[0], shortIds?.[0]];
  if (serverName === undefined || publicKey === undefined || shortId === undefined) {
    const message = 'Stored REALITY settings lack their server names, key or short ids';
    throw new CoreError('INVALID_ARGUMENT', message);
  }
  return { kind: 'reality', serverName, publicKey, shortId, fingerprint, mldsa65Verify };
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
function serverNameOf(tls: { serverName?: string | undefined }, host: string): string | undefined {
  return tls.serverName ?? (isIP(host) === 0 ? host : undefined);
}
