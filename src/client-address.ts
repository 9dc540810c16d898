import net from 'node:net';

/** Tells senders of requests without a key apart, so that each can be limited. */
export interface ClientAddresses {
  /**
   * The sender's address: an IPv4 address, or the /64 of an IPv6 one, since one host gets a whole /64 and
   * chooses freely within it. `forwardedFor` is called only if the peer is a trusted proxy, and returns
   * `X-Forwarded-For` as one list. Then the right-most address that is no trusted proxy counts: everything
   * to the left of it is only the sender's claim. If there is something other than an address, the peer's
   * address counts.
   */
  senderOf(peer: string, forwardedFor: () => string): string;
}

/** `invalid` names an entry that is neither an address nor a prefix. */
type TrustedProxies =
  | { outcome: 'parsed'; isTrusted: (address: string) => boolean; count: number }
  | { outcome: 'invalid'; entry: string };

/** Reads the value of CORE_TRUSTED_PROXIES: addresses and CIDR prefixes, separated by commas. */
export function parseTrustedProxies(text: string): TrustedProxies {
  const list = new net.BlockList();
  const entries = text.split(',').map((entry) => entry.trim());
  let count = 0;
  for (const entry of entries) {
    if (entry === '') continue;
    const [written = '', bits, ...more] = entry.split('/');
    const address = canonicalOf(written);
    const prefix = prefixOf(written, bits);
    if (address === undefined || prefix === undefined || more.length > 0) {
      return { outcome: 'invalid', entry };
    }
    list.addSubnet(address, prefix, familyOf(address));
    count += 1;
  }
  const isTrusted = (address: string): boolean => list.check(address, familyOf(address));
  return { outcome: 'parsed', isTrusted, count };
}

/** See parseTrustedProxies for `trustedProxies`. If it is empty, `X-Forwarded-For` never counts. */
export function createClientAddresses(trustedProxies: string): ClientAddresses {
  const proxies = parseTrustedProxies(trustedProxies);
  if (proxies.outcome === 'invalid') throw new Error(`not an address: ${proxies.entry}`);
  const { isTrusted, count } = proxies;
  return {
    senderOf(peer, forwardedFor) {
      const address = canonicalOf(peer);
      if (address === undefined) return peer;
      if (count === 0 || !isTrusted(address)) return networkOf(address);
      return networkOf(forwarded(forwardedFor(), isTrusted) ?? address);
    },
  };
}

function forwarded(list: string, isTrusted: (address: string) => boolean): string | undefined {
  let found: string | undefined;
  for (const hop of list.split(',').reverse()) {
    const address = canonicalOf(withoutPort(hop.trim()));
    if (address === undefined) return undefined;
    found = address;
    if (!isTrusted(address)) break;
  }
  return found;
}

/** Some proxies write `192.0.2.1:4711`, `[2001:db8::1]:4711` or `[2001:db8::1]`. */
function withoutPort(hop: string): string {
  return /^\[([^\]]*)\](?::\d+)?$/.exec(hop)?.[1] ?? /^([\d.]+):\d+$/.exec(hop)?.[1] ?? hop;
}

/** IPv4 with dots, even if it was mapped into IPv6; IPv6 as eight groups; undefined for anything else. */
function canonicalOf(address: string): string | undefined {
  if (net.isIPv4(address)) return address;
  if (!net.isIPv6(address)) return undefined;
  const groups = groupsOf(address.split('%')[0] ?? '');
  if (!isMapped(groups)) return groups.map((group) => group.toString(16)).join(':');
  const [high = 0, low = 0] = groups.slice(6);
  return [high >> 8, high & 255, low >> 8, low & 255].join('.');
}

/** The eight numbers of a valid IPv6 address without a zone. */
function groupsOf(address: string): number[] {
  const text = address.replace(
    /(\d+)\.(\d+)\.(\d+)\.(\d+)$/,
    (_, a, b, c, d) =>
      `${(Number(a) * 256 + Number(b)).toString(16)}:${(Number(c) * 256 + Number(d)).toString(16)}`,
  );
  const [head = [], tail] = text
    .split('::')
    .map((part) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16))));
  if (tail === undefined) return head;
  return [...head, ...Array<number>(8 - head.length - tail.length).fill(0), ...tail];
}

function isMapped(groups: readonly number[]): boolean {
  return groups[5] === 0xffff && groups.slice(0, 5).every((group) => group === 0);
}

/** Bits of a prefix, counted in the address that canonicalOf returns. Without bits it is one address. */
function prefixOf(written: string, bits: string | undefined): number | undefined {
  const wide = net.isIPv6(written);
  const all = wide ? 128 : 32;
  if (bits !== undefined && !/^\d{1,3}$/.test(bits)) return undefined;
  const prefix = bits === undefined ? all : Number(bits);
  if (prefix > all) return undefined;
  if (!wide || net.isIPv6(canonicalOf(written) ?? '')) return prefix;
  return prefix < 96 ? undefined : prefix - 96;
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return net.isIPv4(address) ? 'ipv4' : 'ipv6';
}

function networkOf(address: string): string {
  if (net.isIPv4(address)) return address;
  return `${address.split(':').slice(0, 4).join(':')}::/64`;
}
