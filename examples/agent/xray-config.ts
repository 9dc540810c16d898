import type { NodeConfig } from '../../src/contract/node-config.ts';

/** A JSON object of Xray's. */
export type JsonObject = Record<string, unknown>;

/** An inbound or outbound. Every one that Core renders has a tag. */
export interface Tagged extends JsonObject {
  tag: string;
  protocol: string;
}

/** Xray's configuration file. Fields that this agent does not touch are what Core sent. */
export interface XrayConfig extends JsonObject {
  inbounds: Tagged[];
  outbounds: Tagged[];
  routing: JsonObject & { rules: JsonObject[] };
  api: { tag: string; listen: string; services: string[] };
}

/** An outbound that this agent adds. It drops what reaches it. */
export const blockedTag = 'core-agent-blocked';
const apiServices = ['HandlerService', 'RoutingService', 'StatsService'];

/**
 * Turns Core's NodeConfig into Xray's file. Pure, and stable to the byte. Undefined if the node has no
 * Xray inbound, so there is nothing to run.
 * @param options.apiPort replaces the API port that Core chose.
 */
export function renderForXray(
  config: NodeConfig,
  options: { apiPort?: number | undefined } = {},
): XrayConfig | undefined {
  const { xray } = config.services;
  if (xray === undefined || xray.inbounds.length === 0) return undefined;
  const port = options.apiPort ?? apiPortOf(xray);
  const given = xray as unknown as XrayConfig;
  return {
    log: { loglevel: 'warning', access: 'none' },
    ...given,
    api: { ...given.api, listen: `127.0.0.1:${port}`, services: apiServices },
    // The first one takes the traffic that no rule matches.
    outbounds: [...given.outbounds, { tag: blockedTag, protocol: 'blackhole', settings: {} }],
    routing: { ...given.routing, rules: [apiRule(port), ...given.routing.rules] },
  };
}

export function apiPortOf({ api }: { api: { listen: string } }): number {
  return Number(new URL(`tcp://${api.listen}`).port);
}

/**
 * A user of the proxy must not reach the API, because the API trusts everybody. The rule blocks the
 * port on every address, since a name may resolve to a loopback address.
 */
function apiRule(port: number): JsonObject {
  return { type: 'field', port: String(port), outboundTag: blockedTag };
}

/**
 * The routing with a rule that blocks these links. Xray checks a credential when a connection starts,
 * and some connections carry many streams (Hysteria2, mux). The rule stops streams that a removed user
 * opens on such a connection.
 */
export function routingWithout(config: XrayConfig, uuids: readonly string[]): JsonObject {
  if (uuids.length === 0) return config.routing;
  const rule = { type: 'field', user: uuids, outboundTag: blockedTag };
  return { ...config.routing, rules: [rule, ...config.routing.rules] };
}

/** The clients of an inbound by their `email`, which is the link's UUID. */
export function clientsOf(inbound: Tagged): Map<string, JsonObject> {
  const settings = inbound['settings'] as { clients?: JsonObject[] } | undefined;
  const clients = new Map<string, JsonObject>();
  for (const client of settings?.clients ?? []) clients.set(String(client['email']), client);
  return clients;
}

/** The inbound with these clients in place of its own. */
export function withClients(inbound: Tagged, clients: readonly JsonObject[]): Tagged {
  return { ...inbound, settings: { ...(inbound['settings'] as JsonObject), clients } };
}

/** Whether sessions of the inbound cross UDP, where the kernel has no socket for each of them. */
export function isUdp(inbound: Tagged): boolean {
  return inbound.protocol === 'hysteria' || inbound.protocol === 'shadowsocks';
}

/**
 * The settings of `env` as environment variables: an Xray before 26.7.11 does not read `env`. A connection
 * of VLESS with flow vision is spliced by default: the kernel moves its bytes, and Xray counts them when the
 * connection ends. So a limit would not take effect during a download, and a killed proxy would lose
 * the whole count. Without a word from Core splicing is off.
 */
export function environmentOf(config: XrayConfig): Record<string, string> {
  const env = { 'xray.buf.splice': 'disable', ...(config['env'] as Record<string, string>) };
  return Object.fromEntries(
    Object.entries(env).map(([name, value]) => [name.toUpperCase().replaceAll('.', '_'), value]),
  );
}
