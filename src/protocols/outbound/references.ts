import type { Outbound } from './outbound.ts';

type Json = Record<string, unknown>;

/** A place where an outbound names another one, through which it connects. */
interface OutboundReference {
  path: string;
  tag: string;
}

/** All outbounds that an outbound names, in its options and in its `raw`. */
export function referencesOf(
  outbound: Pick<Outbound, 'proxySettings' | 'streamSettings' | 'raw'>,
): OutboundReference[] {
  const found: OutboundReference[] = [];
  const add = (path: string, tag: unknown): void => {
    if (typeof tag === 'string' && tag !== '') found.push({ path, tag });
  };
  for (const [from, at] of [
    [outbound as Json, ''],
    [object(outbound.raw), 'raw.'],
  ] as const) {
    const stream = object(from['streamSettings']);
    add(`${at}proxySettings.tag`, object(from['proxySettings'])['tag']);
    add(`${at}streamSettings.sockopt.dialerProxy`, object(stream['sockopt'])['dialerProxy']);
    const ech = object(object(stream['tlsSettings'])['echSockopt']);
    add(`${at}streamSettings.tlsSettings.echSockopt.dialerProxy`, ech['dialerProxy']);
  }
  return found;
}

/** The tags of inbounds that exist because of an outbound: a loopback's, and the one of a reverse proxy. */
export function inboundTagsOf(outbound: Pick<Outbound, 'protocol' | 'settings'>): string[] {
  const { protocol, settings } = outbound;
  const tag = protocol === 'loopback' ? settings['inboundTag'] : object(settings['reverse'])['tag'];
  return typeof tag === 'string' ? [tag] : [];
}

function object(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {};
}
