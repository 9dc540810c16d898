import type {
  NodeConfig,
  XrayInbound,
  XrayServiceConfig,
  XrayStreamSettings,
} from '../../src/contract/node-config.ts';

/** A JSON object of v2ray's. */
type Block = Record<string, unknown>;

/** What the node is to run, or everything in it that v2ray 4.34 cannot run. */
export type Rendered =
  | { kind: 'config'; json: string }
  /** The node has no Xray inbound, so there is nothing to run. */
  | { kind: 'nothing' }
  | { kind: 'refused'; message: string };

const blockedTag = 'core-agent-blocked';

/**
 * The proxy's file for Core's NodeConfig. Pure, and stable to the byte: equal text means that no
 * restart is needed.
 * @param options.apiPort in place of the API port that Core chose.
 */
export function renderForProxy(
  config: NodeConfig,
  options: { apiPort?: number | undefined } = {},
): Rendered {
  const { xray, mtproto } = config.services;
  if (mtproto !== undefined) {
    return { kind: 'refused', message: 'services.mtproto needs telemt, which is not run here' };
  }
  if (xray === undefined || xray.inbounds.length === 0) return { kind: 'nothing' };
  try {
    return { kind: 'config', json: JSON.stringify(v2rayConfig(xray, options)) };
  } catch (thrown) {
    return { kind: 'refused', message: (thrown as Error).message };
  }
}

/**
 * The configuration of v2ray 4.34 (the `v2ray` of Debian) for what Core renders for Xray 26: VLESS,
 * VMess and Trojan over `raw`, which it calls `tcp`, and `ws`, with TLS or without. What it would
 * ignore without harm is left out: the host that a WebSocket inbound insists on, `routeOnly`, QUIC
 * sniffing, online counters. https://www.v2fly.org/en_US/config/overview.html
 * @throws Error naming every inbound with anything else. An inbound that silently did not run would
 * be worse than an apply that fails.
 */
export function v2rayConfig(
  xray: XrayServiceConfig,
  options: { apiPort?: number | undefined } = {},
): Block {
  const faults = xray.inbounds.flatMap(faultsOf);
  if (faults.length > 0) throw new Error(faults.slice(0, 20).join('; '));
  const { tag } = xray.api;
  const port = options.apiPort ?? Number(new URL(`tcp://${xray.api.listen}`).port);
  return {
    log: { loglevel: 'warning', access: 'none' },
    // Counters are all that this agent asks for: nobody can change the proxy through its API.
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
    // The first one takes what no rule claims.
    outbounds: [...xray.outbounds, { tag: blockedTag, protocol: 'blackhole', settings: {} }],
    routing: {
      domainStrategy: xray.routing.domainStrategy,
      rules: [
        { type: 'field', inboundTag: [tag], outboundTag: tag },
        // A user of the proxy must not reach the API, which trusts whoever speaks to it. A name may
        // stand for a loopback address, so it is the port that is blocked.
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
  const { network, security } = inbound.streamSettings;
  const hasFlow = protocol === 'vless' && inbound.settings.clients.some((client) => client.flow);
  return [
    ...(network === 'raw' || network === 'ws' ? [] : [has(`network ${network}`)]),
    ...(security === 'none' || security === 'tls' ? [] : [has(`security ${security}`)]),
    ...(hasFlow ? [has('flow xtls-rprx-vision')] : []),
  ];
}

function inboundOf(inbound: XrayInbound): Block {
  const { tag, listen, port, protocol, settings, sniffing } = inbound;
  return {
    ...{ tag, listen, port, protocol, settings },
    // faultsOf has let through only those that have streamSettings of this type.
    streamSettings: streamOf((inbound as { streamSettings: XrayStreamSettings }).streamSettings),
    ...(sniffing?.enabled === true
      ? { sniffing: { enabled: true, destOverride: ['http', 'tls'] } }
      : {}),
  };
}

function streamOf(stream: XrayStreamSettings): Block {
  const { network, security, wsSettings, tlsSettings } = stream;
  return {
    network: network === 'raw' ? 'tcp' : network,
    security,
    ...(wsSettings === undefined ? {} : { wsSettings: { path: wsSettings.path } }),
    ...(tlsSettings === undefined ? {} : { tlsSettings }),
  };
}
