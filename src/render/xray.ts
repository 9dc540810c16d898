import type { XrayApi, XrayOutbound, XrayPolicy } from '../contract/node-config.ts';
import { type Json, joined } from './clients-json.ts';
import type { ProtocolLinks } from './link-records.ts';
import type { OutboundRow, ProtocolRow, RuleRow } from './node-rows.ts';
import { byText, withSortedKeys } from './order.ts';
import { xrayEnv } from './xray-env.ts';
import { renderXrayInbound } from './xray-inbound.ts';

/**
 * What the accounting of traffic needs: a counter for every user (each `email` is a link's UUID), every
 * inbound and every outbound, and who is online. All users have level 0.
 * https://xtls.github.io/en/config/policy.html
 */
const policy: XrayPolicy = {
  levels: { '0': { statsUserUplink: true, statsUserDownlink: true, statsUserOnline: true } },
  system: {
    statsInboundUplink: true,
    statsInboundDownlink: true,
    statsOutboundUplink: true,
    statsOutboundDownlink: true,
  },
};

/** The api's port in Xray's documentation. */
const apiPortMin = 10_085;

/**
 * The Xray service of a node as JSON; undefined if Xray has no inbound to run.
 * @param linksOf Gives the sorted links of a protocol.
 */
export function renderXray(
  rows: {
    protocols: readonly ProtocolRow[];
    outbounds: readonly OutboundRow[];
    rules: readonly RuleRow[];
  },
  linksOf: (nodeProtocolId: number) => ProtocolLinks,
): Json | undefined {
  const inbounds = rows.protocols
    .map((row) => renderXrayInbound(row, linksOf(row.id)))
    .filter((inbound) => inbound !== undefined);
  if (inbounds.length === 0) return undefined;
  const rules = [...rows.rules].sort((left, right) => left.position - right.position);
  const env = xrayEnv(rows.protocols);
  const rest = {
    ...(env === undefined ? {} : { env }),
    outbounds: renderOutbounds(rows.outbounds),
    routing: {
      domainStrategy: 'AsIs',
      rules: rules.map((row) => withSortedKeys(row.rule)),
    },
    policy,
    stats: {},
    api: renderApi(rows.protocols),
  };
  return ['{"inbounds":[', ...joined(inbounds), `],${JSON.stringify(rest).slice(1)}`];
}

/**
 * The api gives the node's agent the counters (StatsService), and lets it change users (HandlerService)
 * and rules (RoutingService) without a restart. With `listen`, Xray needs no inbound and no rule for
 * it: https://xtls.github.io/en/config/api.html. It gets the first port from 10085 on that no protocol
 * of the node has.
 */
function renderApi(protocols: readonly ProtocolRow[]): XrayApi {
  const taken = new Set(protocols.map((row) => row.port));
  let port = apiPortMin;
  while (taken.has(port)) port = port === 65_535 ? 1_024 : port + 1;
  return {
    tag: 'api',
    listen: `127.0.0.1:${port}`,
    services: ['HandlerService', 'RoutingService', 'StatsService'],
  };
}

/** Xray sends traffic that matches no rule to the first outbound, so there is always one. */
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
