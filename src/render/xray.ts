import type {
  XrayApi,
  XrayOutbound,
  XrayPolicy,
  XrayServiceConfig,
} from '../contract/node-config.ts';
import { CoreError } from '../errors.ts';
import { apiPort } from '../protocols/api-port.ts';
import { defaultOutboundTag } from '../protocols/outbound/outbound.ts';
import { rawListeners } from '../protocols/raw-listeners.ts';
import type { XraySettings } from '../protocols/routing/xray-settings.ts';
import { type Json, joined } from './clients-json.ts';
import type { ProtocolLinks } from './link-records.ts';
import { mergeRaw, mergeRawRoot } from './merge-raw.ts';
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

/**
 * The Xray service of a node as JSON; undefined if Xray has no inbound to run.
 * @param linksOf Gives the sorted links of a protocol.
 */
export function renderXray(
  rows: {
    protocols: readonly ProtocolRow[];
    outbounds: readonly OutboundRow[];
    rules: readonly RuleRow[];
    xray?: XraySettings;
  },
  linksOf: (nodeProtocolId: number) => ProtocolLinks,
): Json | undefined {
  const inbounds = rows.protocols
    .map((row) => renderXrayInbound(row, linksOf(row.id)))
    .filter((inbound) => inbound !== undefined);
  if (inbounds.length === 0) return undefined;
  const env = xrayEnv(rows.protocols);
  const { raw, dns, observatory, burstObservatory, ...routing } = rows.xray ?? {};
  const { inbounds: rawInbounds = [], ...rawRest } = raw ?? {};
  const rest = {
    ...(env === undefined ? {} : { env }),
    outbounds: renderOutbounds(rows.outbounds),
    routing: renderRouting(rows.rules, routing),
    policy,
    stats: {},
    api: renderApi(rows.protocols, raw),
    ...given({ dns, observatory, burstObservatory }),
  };
  const added = (rawInbounds as object[]).map((one): Json => [JSON.stringify(withSortedKeys(one))]);
  const json = JSON.stringify(mergeRawRoot(rest, rawRest));
  return ['{"inbounds":[', ...joined([...inbounds, ...added]), `],${json.slice(1)}`];
}

function renderRouting(
  rules: readonly RuleRow[],
  { domainStrategy = 'AsIs', balancers = [] }: XraySettings,
): XrayServiceConfig['routing'] {
  const sorted = [...rules].sort((left, right) => left.position - right.position);
  return {
    domainStrategy,
    rules: sorted.map((row) => withSortedKeys(row.rule)),
    ...(balancers.length === 0
      ? {}
      : { balancers: balancers.map((one) => ({ ...withSortedKeys(one) })) }),
  };
}

/** The blocks that an operator gave. */
function given(blocks: Record<string, object | undefined>): Record<string, object> {
  const named = Object.entries(blocks).filter(
    (block): block is [string, object] => block[1] !== undefined,
  );
  return Object.fromEntries(named.map(([name, block]) => [name, withSortedKeys(block)]));
}

/**
 * The api gives the node's agent the counters (StatsService), and lets it change users (HandlerService)
 * and rules (RoutingService) without a restart. With `listen`, Xray needs no inbound and no rule for
 * it: https://xtls.github.io/en/config/api.html.
 */
function renderApi(protocols: readonly ProtocolRow[], raw: XraySettings['raw']): XrayApi {
  const port = apiPort(protocols, rawListeners(raw));
  if (port === undefined) throw new CoreError('INVALID_ARGUMENT', 'No port is left for the api');
  return {
    tag: 'api',
    listen: `127.0.0.1:${port}`,
    services: ['HandlerService', 'RoutingService', 'StatsService'],
  };
}

/** Xray sends traffic that matches no rule to the first outbound, so there is always one. */
function renderOutbounds(rows: readonly OutboundRow[]): XrayOutbound[] {
  if (rows.length === 0) return [{ tag: defaultOutboundTag, protocol: 'freedom', settings: {} }];
  return [...rows]
    .sort((left, right) => left.position - right.position || byText(left.tag, right.tag))
    .map(({ tag, protocol, settings, options }) => {
      const { raw, ...rest } = options ?? {};
      const outbound = {
        tag,
        protocol,
        settings: withSortedKeys(settings),
        ...withSortedKeys(rest),
      };
      return mergeRaw(outbound as XrayOutbound, raw);
    });
}
