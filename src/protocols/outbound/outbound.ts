import { isIPv6 } from 'node:net';
import { z } from 'zod';
import { isAddress } from '../../contract/fields.ts';
import { type Fault, invalidArgument } from '../../errors.ts';
import { namesLike, rawObject } from '../raw.ts';
import { domainStrategy, tag } from '../routing/values.ts';
import { isPrivateServer } from './private-server.ts';
import { outboundSettingsSchemas } from './settings.ts';
import { networkOf, type OutboundStream, outboundStream, securityOf } from './stream.ts';

/** The outbound protocols that Xray knows. A node refuses a configuration with another name. */
export const outboundProtocols = [
  'blackhole',
  'dns',
  'freedom',
  'http',
  'hysteria',
  'loopback',
  'shadowsocks',
  'socks',
  'trojan',
  'vless',
  'vmess',
  'wireguard',
] as const;
export type OutboundProtocol = (typeof outboundProtocols)[number];

/** The one outbound of a node that has none configured. */
export const defaultOutboundTag = 'direct';

/** What an outbound has beside its settings, with the names of Xray. `raw` is Core's. */
export interface OutboundOptions {
  sendThrough?: string | undefined;
  targetStrategy?: string | undefined;
  streamSettings?: Record<string, unknown> | undefined;
  mux?: Record<string, unknown> | undefined;
  proxySettings?: { tag: string; transportLayer?: boolean | undefined } | undefined;
  /** Merged into the rendered outbound; nobody has checked it. */
  raw?: Record<string, unknown> | undefined;
}

/** An outbound as an operator configures it. */
export interface Outbound extends OutboundOptions {
  tag: string;
  protocol: OutboundProtocol;
  settings: Record<string, unknown>;
}

export const outboundOptionNames = [
  'sendThrough',
  'targetStrategy',
  'streamSettings',
  'mux',
  'proxySettings',
  'raw',
] as const;

const sendThrough = z.string().refine((given) => {
  if (given === 'origin' || given === 'srcip') return true;
  const [address = '', bits, ...more] = given.split('/');
  if (!isAddress(address) || more.length > 0) return false;
  return (
    bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (isIPv6(address) ? 128 : 32))
  );
}, 'Must be an address of the node, a prefix of it, origin or srcip');

const int16 = z.int().min(-1).max(1_024);
const options = {
  sendThrough: sendThrough.optional(),
  targetStrategy: domainStrategy.optional(),
  streamSettings: outboundStream.optional(),
  mux: z
    .strictObject({
      enabled: z.boolean().optional(),
      concurrency: int16.optional(),
      xudpConcurrency: int16.optional(),
      xudpProxyUDP443: z.enum(['reject', 'allow', 'skip']).optional(),
    })
    .optional(),
  proxySettings: z.strictObject({ tag, transportLayer: z.boolean().optional() }).optional(),
  raw: rawObject(({ given, fault }) => {
    if (namesLike(given, 'tag').length + namesLike(given, 'protocol').length === 0) return;
    fault([], 'Must not have tag or protocol, which the outbound has itself');
  }).optional(),
};

const outboundSchema = z
  .discriminatedUnion(
    'protocol',
    outboundProtocols.map((protocol) =>
      z.strictObject({
        tag: z.string(),
        protocol: z.literal(protocol),
        settings: outboundSettingsSchemas[protocol],
        ...options,
      }),
    ) as never,
  )
  .superRefine((given, context) => checkTogether(given as Outbound, context));

/**
 * Checks an outbound as Xray 26.7.28 would, and that it can work at all. Nothing in it is changed.
 * @throws CoreError INVALID_ARGUMENT naming every place at fault.
 */
export function validateOutbound(given: Outbound): void {
  const faults = outboundFaults(given);
  if (faults.length > 0) throw invalidArgument(`outbound ${given.tag}`, faults, 'outbound');
}

/** Every place of an outbound that is at fault. */
export function outboundFaults(given: Outbound): Fault[] {
  const parsed = outboundSchema.safeParse(given);
  return (parsed.error?.issues ?? []).map(({ path, message }) => ({ path, message }));
}

/** What holds between the settings and the rest of an outbound. */
function checkTogether(given: Outbound, context: z.core.$RefinementCtx): void {
  const fault = (path: PropertyKey[], message: string): void => {
    context.addIssue({ code: 'custom', path, message });
  };
  const stream = given.streamSettings as OutboundStream | undefined;
  const [network, security] = [networkOf(stream), securityOf(stream)];
  if (given.protocol === 'hysteria' && network !== 'hysteria') {
    fault(['streamSettings', 'network'], 'Must be hysteria, or Xray does not start');
  }
  if (given.proxySettings !== undefined && stream?.sockopt?.dialerProxy !== undefined) {
    fault(['proxySettings'], 'Does not go with sockopt.dialerProxy');
  }
  if (given.protocol !== 'vless' && given.protocol !== 'trojan') return;
  const { server, user, path } = serverOf(given);
  const encryption = String(user['encryption'] ?? 'none');
  const isReadable = security === 'none' && (given.protocol === 'trojan' || encryption === 'none');
  if (isReadable && !isPrivateServer(String(server['address']))) {
    fault(
      [...path, 'address'],
      `Is public, so ${given.protocol} needs streamSettings with security tls or reality: ${readableText(path)}`,
    );
  }
  const flow = String(user['flow'] ?? '');
  if (flow === '' || encryption !== 'none') return;
  if (security === 'none' || !['raw', 'tcp'].includes(network)) {
    fault([...path, 'flow'], 'Only goes with network raw and security tls or reality');
  }
}

/** Xray itself refuses the flat form only, and takes the same server in `vnext` or `servers`. */
function readableText(path: readonly PropertyKey[]): string {
  const text = 'everybody on the way could read the traffic';
  return path.length > 1 ? text : `${text}, and Xray from 26.7.11 on does not start`;
}

type Json = Record<string, unknown>;

/** The server of an outbound and its user, in either form; both are the settings in the flat form. */
function serverOf({ settings }: Outbound): { server: Json; user: Json; path: PropertyKey[] } {
  for (const name of ['vnext', 'servers']) {
    const [server] = (settings[name] ?? []) as Json[];
    if (server === undefined) continue;
    const [user = server] = (server['users'] ?? []) as Json[];
    return { server, user, path: ['settings', name, 0] };
  }
  return { server: settings, user: settings, path: ['settings'] };
}
