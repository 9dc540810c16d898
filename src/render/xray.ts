import type {
  XrayInbound,
  XrayOutbound,
  XrayPolicy,
  XrayServiceConfig,
  XrayStreamSettings,
} from '../contract/node-config.ts';
import { CoreError } from '../errors.ts';
import type { OutboundRow, ProtocolRow, RuleRow } from './load.ts';
import { byText, withSortedKeys } from './order.ts';
import {
  parseProtocolSettings,
  type TrojanSettings,
  type VlessSettings,
} from './protocol-settings.ts';

/** Traffic is counted by user (each `email` is a link's UUID) and by outbound, at level 0. */
const policy: XrayPolicy = {
  levels: { '0': { statsUserUplink: true, statsUserDownlink: true, statsUserOnline: true } },
  system: { statsOutboundUplink: true, statsOutboundDownlink: true },
};

/**
 * The Xray service of a node, or undefined where it has no inbound of Xray's.
 * @param uuidsOf UUIDs of a protocol's links, sorted.
 */
export function renderXray(
  rows: {
    protocols: readonly ProtocolRow[];
    outbounds: readonly OutboundRow[];
    rules: readonly RuleRow[];
  },
  uuidsOf: (nodeProtocolId: number) => readonly string[],
): XrayServiceConfig | undefined {
  const inbounds: XrayInbound[] = [];
  for (const row of rows.protocols) {
    if (row.protocol === 'VLESS') inbounds.push(vlessInbound(row, uuidsOf(row.id)));
    if (row.protocol === 'TROJAN') inbounds.push(trojanInbound(row, uuidsOf(row.id)));
  }
  if (inbounds.length === 0) return undefined;
  const rules = [...rows.rules].sort((left, right) => left.position - right.position);
  return {
    inbounds,
    outbounds: renderOutbounds(rows.outbounds),
    routing: {
      domainStrategy: 'AsIs',
      rules: rules.map((row) => withSortedKeys(row.rule)),
    },
    policy,
    stats: {},
  };
}

function vlessInbound(row: ProtocolRow, uuids: readonly string[]): XrayInbound {
  const settings = parseProtocolSettings('VLESS', row.settings);
  const { flow } = settings;
  return {
    ...place(row, settings),
    protocol: 'vless',
    settings: {
      clients: uuids.map((uuid) => ({
        id: uuid,
        email: uuid,
        ...(flow === undefined ? {} : { flow }),
      })),
      decryption: 'none',
    },
    streamSettings: streamSettings(settings),
  };
}

function trojanInbound(row: ProtocolRow, uuids: readonly string[]): XrayInbound {
  const settings = parseProtocolSettings('TROJAN', row.settings);
  return {
    ...place(row, settings),
    protocol: 'trojan',
    settings: { clients: uuids.map((uuid) => ({ password: uuid, email: uuid })) },
    streamSettings: streamSettings(settings),
  };
}

function place(row: ProtocolRow, settings: { sniffing: boolean }) {
  return {
    tag: `in-${row.id}`,
    listen: '0.0.0.0',
    port: row.port,
    ...(settings.sniffing
      ? { sniffing: { enabled: true, destOverride: ['http', 'tls', 'quic'], routeOnly: true } }
      : {}),
  };
}

function streamSettings(settings: VlessSettings | TrojanSettings): XrayStreamSettings {
  const { ws, grpc, xhttp, tls } = settings;
  const stream: XrayStreamSettings = { network: settings.network, security: settings.security };
  if (ws !== undefined) stream.wsSettings = { path: ws.path, ...hostOf(ws) };
  if (grpc !== undefined) stream.grpcSettings = { serviceName: grpc.serviceName };
  if (xhttp !== undefined) {
    stream.xhttpSettings = { path: xhttp.path, mode: xhttp.mode, ...hostOf(xhttp) };
  }
  if (tls !== undefined) {
    stream.tlsSettings = {
      certificates: [{ certificateFile: tls.certificateFile, keyFile: tls.keyFile }],
      ...(tls.serverName === undefined ? {} : { serverName: tls.serverName }),
    };
  }
  if ('reality' in settings && settings.reality !== undefined) {
    stream.realitySettings = realitySettings(settings.reality);
  }
  return stream;
}

function realitySettings(
  reality: NonNullable<VlessSettings['reality']>,
): NonNullable<XrayStreamSettings['realitySettings']> {
  const { target, serverNames, privateKey, shortIds } = reality;
  if (serverNames === undefined || privateKey === undefined || shortIds === undefined) {
    throw new CoreError(
      'INVALID_ARGUMENT',
      'Stored REALITY settings lack their server names, key or short ids',
    );
  }
  return { target, serverNames, privateKey, shortIds };
}

function hostOf(block: { host?: string | undefined }): { host?: string } {
  return block.host === undefined ? {} : { host: block.host };
}

/** Xray sends what no rule claims to the first outbound, so there is always one. */
function renderOutbounds(rows: readonly OutboundRow[]): XrayOutbound[] {
  if (rows.length === 0) return [{ tag: 'direct', protocol: 'freedom', settings: {} }];
  return [...rows]
    .sort((left, right) => left.position - right.position || byText(left.tag, right.tag))
    .map((row) => ({
      tag: row.tag,
      protocol: row.protocol,
      settings: withSortedKeys(row.settings),
    }));
}
