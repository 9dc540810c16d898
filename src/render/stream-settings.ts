import type {
  HysteriaStream,
  XrayFinalMask,
  XrayStreamSettings,
  XrayTlsSettings,
} from '../contract/node-config.ts';
import { CoreError } from '../errors.ts';
import type { ProtocolSettings } from '../protocols/settings.ts';
import { extraOfServer } from '../protocols/xhttp.ts';

/** The transport of an inbound: https://xtls.github.io/en/config/transport.html */
export function streamSettings(
  settings: ProtocolSettings['VLESS'] | ProtocolSettings['VMESS'],
): XrayStreamSettings {
  const { ws, grpc, xhttp, tls, sockopt } = settings;
  const stream: XrayStreamSettings = { network: settings.network, security: settings.security };
  if (ws !== undefined) stream.wsSettings = { path: ws.path, ...hostOf(ws) };
  if (grpc !== undefined) stream.grpcSettings = { serviceName: grpc.serviceName };
  if (xhttp !== undefined) {
    const extra = extraOfServer(xhttp.extra);
    stream.xhttpSettings = {
      path: xhttp.path,
      mode: xhttp.mode,
      ...hostOf(xhttp),
      ...(extra === undefined ? {} : { extra }),
    };
  }
  if (tls !== undefined) stream.tlsSettings = tlsSettings(tls);
  if ('reality' in settings && settings.reality !== undefined) {
    stream.realitySettings = realitySettings(settings.reality);
  }
  if (sockopt !== undefined) stream.sockopt = { ...sockopt };
  return stream;
}

/**
 * https://xtls.github.io/en/config/transports/hysteria.html. A client sends the ALPN `h3` over QUIC,
 * but Xray offers only `h2` and `http/1.1` by default.
 */
export function hysteriaStream(settings: ProtocolSettings['HYSTERIA2']): HysteriaStream {
  const { udpIdleTimeout, masquerade, tls } = settings;
  const finalmask = finalMask(settings);
  return {
    network: 'hysteria',
    security: 'tls',
    hysteriaSettings: {
      version: 2,
      ...(udpIdleTimeout === undefined ? {} : { udpIdleTimeout }),
      ...(masquerade === undefined ? {} : { masquerade: { ...masquerade } }),
    },
    tlsSettings: tlsSettings({ ...tls, alpn: ['h3'] }),
    ...(finalmask === undefined ? {} : { finalmask }),
  };
}

/** https://xtls.github.io/en/config/transports/finalmask.html */
function finalMask({ obfs, congestion }: ProtocolSettings['HYSTERIA2']): XrayFinalMask | undefined {
  if (obfs === undefined && congestion === undefined) return undefined;
  const mask: XrayFinalMask = {};
  if (obfs !== undefined) {
    mask.udp = [{ type: obfs.type, settings: { password: obfs.password } }];
  }
  if (congestion !== undefined) {
    const { control, up, down } = congestion;
    mask.quicParams = {
      congestion: control,
      ...(up === undefined ? {} : { brutalUp: up }),
      ...(down === undefined ? {} : { brutalDown: down }),
    };
  }
  return mask;
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

/**
 * https://xtls.github.io/en/config/transports/reality.html. Nodes get nothing that only clients need: no
 * public key, and no key to verify the second signature with.
 */
function realitySettings(
  reality: NonNullable<ProtocolSettings['VLESS']['reality']>,
): NonNullable<XrayStreamSettings['realitySettings']> {
  const { target, serverNames, privateKey, shortIds, publicKey, mldsa65Verify, ...rest } = reality;
  if (serverNames === undefined || privateKey === undefined || shortIds === undefined) {
    const message = 'Stored REALITY settings lack their server names, key or short ids';
    throw new CoreError('INVALID_ARGUMENT', message);
  }
  return { target, serverNames, privateKey, shortIds, ...rest };
}

function hostOf(block: { host?: string | undefined }): { host?: string } {
  return block.host === undefined ? {} : { host: block.host };
}
