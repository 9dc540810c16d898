import type {
  HysteriaStream,
  XrayStreamSettings,
  XrayTlsSettings,
} from '../contract/node-config.ts';
import { CoreError } from '../errors.ts';
import type { ProtocolSettings } from '../protocols/settings.ts';

/** The transport of an inbound: https://xtls.github.io/en/config/transport.html */
export function streamSettings(
  settings: ProtocolSettings['VLESS'] | ProtocolSettings['TROJAN'],
): XrayStreamSettings {
  const { ws, grpc, xhttp, tls } = settings;
  const stream: XrayStreamSettings = { network: settings.network, security: settings.security };
  if (ws !== undefined) stream.wsSettings = { path: ws.path, ...hostOf(ws) };
  if (grpc !== undefined) stream.grpcSettings = { serviceName: grpc.serviceName };
  if (xhttp !== undefined) {
    stream.xhttpSettings = { path: xhttp.path, mode: xhttp.mode, ...hostOf(xhttp) };
  }
  if (tls !== undefined) stream.tlsSettings = tlsSettings(tls);
  if ('reality' in settings && settings.reality !== undefined) {
    stream.realitySettings = realitySettings(settings.reality);
  }
  return stream;
}

/**
 * https://xtls.github.io/en/config/transports/hysteria.html. A client sends the ALPN `h3` over QUIC,
 * but Xray offers only `h2` and `http/1.1` by default.
 */
export function hysteriaStream(settings: ProtocolSettings['HYSTERIA2']): HysteriaStream {
  const { udpIdleTimeout, masquerade, tls } = settings;
  return {
    network: 'hysteria',
    security: 'tls',
    hysteriaSettings: {
      version: 2,
      ...(udpIdleTimeout === undefined ? {} : { udpIdleTimeout }),
      ...(masquerade === undefined ? {} : { masquerade: { ...masquerade } }),
    },
    tlsSettings: tlsSettings({ ...tls, alpn: ['h3'] }),
  };
}

/** https://xtls.github.io/en/config/transports/tls.html */
function tlsSettings(tls: {
  certificateFile: string;
  keyFile: string;
  serverName?: string | undefined;
  alpn?: string[] | undefined;
}): XrayTlsSettings {
  return {
    certificates: [{ certificateFile: tls.certificateFile, keyFile: tls.keyFile }],
    ...(tls.serverName === undefined ? {} : { serverName: tls.serverName }),
    ...(tls.alpn === undefined ? {} : { alpn: tls.alpn }),
  };
}

/** https://xtls.github.io/en/config/transports/reality.html. Nodes get no public key. */
function realitySettings(
  reality: NonNullable<ProtocolSettings['VLESS']['reality']>,
): NonNullable<XrayStreamSettings['realitySettings']> {
  const { target, serverNames, privateKey, shortIds, minClientVer } = reality;
  if (serverNames === undefined || privateKey === undefined || shortIds === undefined) {
    const message = 'Stored REALITY settings lack their server names, key or short ids';
    throw new CoreError('INVALID_ARGUMENT', message);
  }
  return {
    target,
    serverNames,
    privateKey,
    shortIds,
    ...(minClientVer === undefined ? {} : { minClientVer }),
  };
}

function hostOf(block: { host?: string | undefined }): { host?: string } {
  return block.host === undefined ? {} : { host: block.host };
}
