import type { XrayFallback, XrayInbound, XrayInboundPlace } from '../contract/node-config.ts';
import { CoreError } from '../errors.ts';
import { type ProtocolSettings, parseProtocolSettings } from '../protocols/settings.ts';
import { derivedUserKey, keyChars, shadowsocksUserKey } from '../protocols/shadowsocks-key.ts';
import {
  credentialPart,
  credentialUuid,
  elementsJson,
  type Json,
  linkUuid,
  withElements,
} from './clients-json.ts';
import { credentialTextAt, credentialUuidAt, type ProtocolLinks } from './link-records.ts';
import { mergeRaw } from './merge-raw.ts';
import type { ProtocolRow } from './node-rows.ts';
import { hysteriaStream, streamSettings } from './stream-settings.ts';

/** An inbound with an empty array of clients, and the clients that go into it as JSON. */
interface Inbound {
  inbound: XrayInbound;
  clients: Json;
}

/** One inbound as JSON. Undefined if Xray does not serve the protocol, or needs users that it lacks. */
export function renderXrayInbound(row: ProtocolRow, links: ProtocolLinks): Json | undefined {
  const rendered = inboundOf(row, links);
  if (rendered === undefined) return undefined;
  const { raw } = row.settings as { raw?: Record<string, unknown> };
  if (raw === undefined) return withElements(rendered.inbound, 'clients', rendered.clients);
  return withClients(mergeRaw(rendered.inbound, raw), rendered.clients);
}

/**
 * The same with the clients in front. `raw` may hold an empty array named `clients` of its own, in an object
 * whose key is a number: such keys come before all others.
 */
function withClients({ settings, ...rest }: XrayInbound, clients: Json): Json {
  const { clients: _, ...others } = settings;
  const [settingsJson, restJson] = [JSON.stringify(others), JSON.stringify(rest)];
  const comma = settingsJson === '{}' ? '' : ',';
  return [
    '{"settings":{"clients":[',
    ...clients,
    `]${comma}${settingsJson.slice(1)},${restJson.slice(1)}`,
  ];
}

function inboundOf(row: ProtocolRow, links: ProtocolLinks): Inbound | undefined {
  switch (row.protocol) {
    case 'VLESS':
      return vlessInbound(row, links);
    case 'VMESS':
      return vmessInbound(row, links);
    case 'TROJAN':
      return trojanInbound(row, links);
    case 'SHADOWSOCKS':
      return shadowsocksInbound(row, links);
    case 'HYSTERIA2':
      return hysteriaInbound(row, links);
    case 'MTPROTO':
      return undefined;
  }
}

/** https://xtls.github.io/en/config/inbounds/vless.html */
function vlessInbound(row: ProtocolRow, links: ProtocolLinks): Inbound {
  const settings = parseProtocolSettings('VLESS', row.settings);
  const flow = settings.flow === undefined ? '' : `,"flow":"${settings.flow}"`;
  return {
    inbound: {
      ...place(row, settings),
      protocol: 'vless',
      settings: {
        clients: [],
        decryption: settings.decryption ?? 'none',
        ...fallbacksOf(settings),
      },
      streamSettings: streamSettings(settings),
    },
    clients: elementsJson(links, ['{"id":"', credentialUuid, '","email":"', linkUuid, `"${flow}}`]),
  };
}

/** https://xtls.github.io/en/config/inbounds/vmess.html */
function vmessInbound(row: ProtocolRow, links: ProtocolLinks): Inbound {
  const settings = parseProtocolSettings('VMESS', row.settings);
  return {
    inbound: {
      ...place(row, settings),
      protocol: 'vmess',
      settings: { clients: [] },
      streamSettings: streamSettings(settings),
    },
    clients: elementsJson(links, ['{"id":"', credentialUuid, '","email":"', linkUuid, '"}']),
  };
}

/** https://xtls.github.io/en/config/inbounds/trojan.html */
function trojanInbound(row: ProtocolRow, links: ProtocolLinks): Inbound {
  const settings = parseProtocolSettings('TROJAN', row.settings);
  return {
    inbound: {
      ...place(row, settings),
      protocol: 'trojan',
      settings: { clients: [], ...fallbacksOf(settings) },
      streamSettings: streamSettings(settings),
    },
    clients: elementsJson(links, [
      '{"password":"',
      credentialPart(links),
      '","email":"',
      linkUuid,
      '"}',
    ]),
  };
}

/**
 * https://xtls.github.io/en/config/inbounds/shadowsocks.html. Without a client, Xray admits whoever has
 * the server's key, and every share link ever handed out contains that key. So an inbound without
 * clients is left out.
 */
function shadowsocksInbound(row: ProtocolRow, links: ProtocolLinks): Inbound | undefined {
  const settings = parseProtocolSettings('SHADOWSOCKS', row.settings);
  const { method, serverKey } = settings;
  if (serverKey === undefined) {
    throw new CoreError('INVALID_ARGUMENT', 'Stored Shadowsocks settings lack their server key');
  }
  if (links.offsets.length === 0) return undefined;
  return {
    inbound: {
      ...place(row, settings),
      protocol: 'shadowsocks',
      settings: { method, password: serverKey, clients: [], network: settings.network },
    },
    clients: elementsJson(links, [
      '{"password":"',
      {
        text: (_, offset) =>
          links.texts.size === 0
            ? derivedUserKey(method, serverKey, credentialUuidAt(links, offset))
            : shadowsocksUserKey(method, serverKey, credentialTextAt(links, offset)),
        bytesMax: keyChars[method],
      },
      '","email":"',
      linkUuid,
      '"}',
    ]),
  };
}

/**
 * https://xtls.github.io/en/config/inbounds/hysteria.html. Without a client, Xray checks one shared
 * password, and Core sets none. So an inbound without clients is left out here, too.
 */
function hysteriaInbound(row: ProtocolRow, links: ProtocolLinks): Inbound | undefined {
  const settings = parseProtocolSettings('HYSTERIA2', row.settings);
  if (links.offsets.length === 0) return undefined;
  return {
    inbound: {
      ...place(row, settings),
      protocol: 'hysteria',
      settings: { version: 2, clients: [] },
      streamSettings: hysteriaStream(settings),
    },
    clients: elementsJson(links, [
      '{"auth":"',
      credentialPart(links),
      '","email":"',
      linkUuid,
      '"}',
    ]),
  };
}

/** https://xtls.github.io/en/config/features/fallback.html */
function fallbacksOf({ fallbacks }: Pick<ProtocolSettings['TROJAN'], 'fallbacks'>): {
  fallbacks?: XrayFallback[];
} {
  return fallbacks === undefined ? {} : { fallbacks };
}

/** https://xtls.github.io/en/config/inbound.html. Xray ignores the port of a unix socket. */
function place(
  row: ProtocolRow,
  settings: { listen?: string | undefined; sniffing: boolean },
): XrayInboundPlace {
  return {
    tag: `in-${row.id}`,
    listen: settings.listen ?? '0.0.0.0',
    port: row.port,
    ...(settings.sniffing
      ? { sniffing: { enabled: true, destOverride: ['http', 'tls', 'quic'], routeOnly: true } }
      : {}),
  };
}
