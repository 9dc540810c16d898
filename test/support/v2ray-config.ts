import type {
  NodeConfig,
  XrayInbound,
  XrayServiceConfig,
  XrayStreamSettings,
} from '../../src/contract/node-config.ts';

/** A JSON object of v2ray's. */
type JsonObject = Record<string, unknown>;

/** The proxy's configuration, or everything in the node's that v2ray 4.34 cannot run. */
export type Rendered =
  | { kind: 'config'; json: string }
  /** The node has no Xray inbound, so there is nothing to run. */
  | { kind: 'nothing' }
  | { kind: 'refused'; message: string };

const blockedTag = 'core-agent-blocked';

/**
 * Turns Core's NodeConfig into the proxy's file. Pure, and stable to the byte, so equal text means that
 * the proxy needs no restart.
 * @param options.apiPort replaces the API port that Core chose.
 */
export function renderForProxy(
  config: NodeConfig,
  options: { apiPort?: number | undefined } = {},
): Rendered {
  const { xray, mtproto } = config.services;
  if (mtproto !== undefined) {
    return {
      kind: 'refused',
      message: 'services.mtproto needs telemt, which this agent does not run',
    };
  }
  if (xray === undefined || xray.inbounds.length === 0) return { kind: 'nothing' };
  try {
    return { kind: 'config', json: JSON.stringify(v2rayConfig(xray, options)) };
  } catch (thrown) {
    return { kind: 'refused', message: (thrown as Error).message };
  }
}

/**
 * Turns what Core renders for Xray 26 into a configuration of v2ray 4.34 (Debian's `v2ray`): VLESS,
 * VMess and Trojan over `ws` and `raw` (v2ray calls it `tcp`), with or without TLS. It leaves out what
 * v2ray would ignore without harm: the host that a WebSocket inbound insists on, `routeOnly`, QUIC
 * sniffing, online counters. https://www.v2fly.org/en_US/config/overview.html
 * @throws Error that names every inbound with anything else. A failed apply is better than an inbound
 * that silently does not run.
 */
export function v2rayConfig(
  xray: XrayServiceConfig,
  options: { apiPort?: number | undefined } = {},
): JsonObject {
  const faults = xray.inbounds.flatMap(faultsOf);
  if (faults.length > 0) throw new Error(faults.slice(0, 20).join('; '));
  const { tag } = xray.api;
  const port = options.apiPort ?? Number(new URL(`tcp://${xray.api.listen}`).port);
  return {
    log: { loglevel: 'warning', access: 'none' },
    // The API offers only the counters, so nobody can change the proxy through it.
    api: { tag, services: ['StatsService'] },
    stats: {},
    policy: {
      levels: { '0': { statsUserUplink: true, statsUserDownlink: true } },
      system: { statsOutboundUplink: true, statsOutboundDownlink: true },
    },
    inbounds: [
      {
        tag,
        listen: '127.0.0.1',
        port,
        protocol: 'dokodemo-door',
        settings: { address: '127.0.0.1' },
      },
      ...xray.inbounds.map(inboundOf),
    ],
    // The first one takes the traffic that no rule matches.
    outbounds: [...xray.outbounds, { tag: blockedTag, protocol: 'blackhole', settings: {} }],
    routing: {
      domainStrategy: xray.routing.domainStrategy,
      rules: [
        { type: 'field', inboundTag: [tag], outboundTag: tag },
        // A user of the proxy must not reach the API, because the API trusts everybody. The rule blocks
        // the port, since a name may resolve to a loopback address.
        { type: 'field', port: String(port), outboundTag: blockedTag },
        ...xray.routing.rules.map((rule) => ({ ...rule, type: 'field' })),
      ],
    },
  };
}

function faultsOf(inbound: XrayInbound): string[] {
  const has = (what: string): string => `Inbound ${inbound.tag}: V2Ray 4.34 has no ${what}`;
  const { protocol } = inbound;
  if (protocol === 'shadowsocks') return [has('Shadowsocks 2022')];
  if (protocol !== 'vless' && protocol !== 'vmess' && protocol !== 'trojan') {
    return [has(`protocol ${protocol as string}`)];
  }
  const { network, security, sockopt } = inbound.streamSettings;
  const hasFlow = protocol === 'vless' && inbound.settings.clients.some((client) => client.flow);
  return [
    ...(network === 'raw' || network === 'ws' ? [] : [has(`network ${network}`)]),
    ...(security === 'none' || security === 'tls' ? [] : [has(`security ${security}`)]),
    ...(hasFlow ? [has('flow xtls-rprx-vision')] : []),
    ...(sockopt?.['trustedXForwardedFor'] === undefined ? [] : [has('trustedXForwardedFor')]),
  ];
}

function inboundOf(inbound: XrayInbound): JsonObject {
  const { tag, listen, port, protocol, settings, sniffing } = inbound;
  return {
    tag,
    listen,
    port,
    protocol,
    settings,
    // faultsOf has accepted only inbounds with streamSettings of this type.
    streamSettings: streamOf((inbound as { streamSettings: XrayStreamSettings }).streamSettings),
    ...(sniffing?.enabled === true
      ? { sniffing: { enabled: true, destOverride: ['http', 'tls'] } }
      : {}),
  };
}

function streamOf(stream: XrayStreamSettings): JsonObject {
  const { network, security, wsSettings, tlsSettings } = stream;
  return {
    network: network === 'raw' ? 'tcp' : network,
    security,
    ...(wsSettings === undefined ? {} : { wsSettings: { path: wsSettings.path } }),
    ...(tlsSettings === undefined ? {} : { tlsSettings }),
  };
}
