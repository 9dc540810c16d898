import type { XrayServiceConfig } from '../../src/contract/node-config.ts';

/** A JSON object of V2Ray's. */
type Block = Record<string, unknown>;

/**
 * The configuration of V2Ray 4.34 (the `v2ray` of Debian) for what Core renders for Xray 26. V2Ray
 * calls `raw` `tcp`, has the host of a WebSocket among its headers, wants rules to say that they are
 * of type `field`, and reaches its api by an inbound and a rule. The rest reads the same.
 * https://www.v2fly.org/en_US/config/overview.html
 *
 * It knows VLESS, VMess and Trojan over `raw` and `ws`, with TLS or without.
 * @throws Error naming the inbound where there is anything else. An inbound that silently did not
 * run would be worse than an apply that fails.
 */
export function v2rayConfig(xray: XrayServiceConfig): Block {
  const { tag, listen, services } = xray.api;
  const api = new URL(`tcp://${listen}`);
  return {
    log: { loglevel: 'warning' },
    inbounds: [
      {
        tag,
        listen: api.hostname,
        port: Number(api.port),
        protocol: 'dokodemo-door',
        settings: { address: '127.0.0.1' },
      },
      ...xray.inbounds.map(v2rayInbound),
    ],
    outbounds: xray.outbounds,
    routing: {
      domainStrategy: xray.routing.domainStrategy,
      rules: [
        { type: 'field', inboundTag: [tag], outboundTag: tag },
        ...xray.routing.rules.map((rule) => ({ ...rule, type: 'field' })),
      ],
    },
    policy: xray.policy,
    stats: xray.stats,
    // V2Ray 4.34 has no RoutingService.
    api: { tag, services: services.filter((service) => service !== 'RoutingService') },
  };
}

function v2rayInbound(inbound: XrayServiceConfig['inbounds'][number]): Block {
  const { protocol } = inbound;
  if (protocol !== 'vless' && protocol !== 'vmess' && protocol !== 'trojan') {
    throw new Error(`Inbound ${inbound.tag}: V2Ray 4.34 has no ${protocol}`);
  }
  const { network, security, wsSettings, tlsSettings } = inbound.streamSettings;
  if ((network !== 'raw' && network !== 'ws') || security === 'reality') {
    throw new Error(`Inbound ${inbound.tag}: V2Ray 4.34 has no ${network} with ${security}`);
  }
  const headers = wsSettings?.host === undefined ? {} : { headers: { Host: wsSettings.host } };
  return {
    ...inbound,
    ...(inbound.sniffing === undefined
      ? {}
      : { sniffing: { enabled: true, destOverride: ['http', 'tls'] } }),
    streamSettings: {
      network: network === 'raw' ? 'tcp' : network,
      security,
      ...(wsSettings === undefined ? {} : { wsSettings: { path: wsSettings.path, ...headers } }),
      ...(tlsSettings === undefined ? {} : { tlsSettings }),
    },
  };
}
