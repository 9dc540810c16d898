import { listenOf, transportsOf } from '../settings/port-transports.ts';
import type { FleetProtocol } from './file.ts';
import type { StoredNode } from './state.ts';

export type StoredProtocol = StoredNode['protocols'][number];

/** The stored protocol that a declared one is, and by what Core recognised it. */
export interface Match {
  stored: StoredProtocol;
  by: 'name' | 'port' | 'kind';
}

/** What is not matched yet, while the functions below match it. */
interface Matching {
  declared: readonly FleetProtocol[];
  matched: Map<FleetProtocol, Match>;
  left: Set<StoredProtocol>;
}

/**
 * Finds the stored protocol that each declared one is, so that what moves keeps its links:
 *
 * 1. the one of the same name. If that is another kind of protocol, the declared one replaces it.
 * 2. the one of the same kind on the same port, and on the same address if several are. So a file may give names to protocols that Core named.
 * 3. for a file without names: the one of the same kind, if exactly one is left on both sides.
 */
export function matchProtocols(
  declared: readonly FleetProtocol[],
  stored: readonly StoredProtocol[],
): Map<FleetProtocol, Match> {
  const matching: Matching = { declared, matched: new Map(), left: new Set(stored) };
  matchByName(matching);
  matchByPort(matching);
  matchByKind(matching);
  return matching.matched;
}

function matchByName({ declared, matched, left }: Matching): void {
  const byName = new Map([...left].map((one) => [one.name, one]));
  for (const one of declared) {
    const stored = one.name === undefined ? undefined : byName.get(one.name);
    if (stored?.protocol !== one.protocol) continue;
    matched.set(one, { stored, by: 'name' });
    left.delete(stored);
  }
}

/**
 * Two of one kind share a port if they listen on different addresses, or if one is a Shadowsocks on TCP and
 * the other one on UDP. Then the address decides, and after it the transport.
 */
function matchByPort({ declared, matched, left }: Matching): void {
  const sharesTransport: Alike = (one, stored) => {
    const transports = transportsOf(stored.protocol, stored.settings);
    return transportsOf(one.protocol, one.settings).some((name) => transports.includes(name));
  };
  const sharesAll: Alike = (one, stored) =>
    listenOf(one) === listenOf(stored) && sharesTransport(one, stored);
  for (const isAlike of [sharesAll, sharesTransport, () => true]) {
    for (const one of declared) {
      if (matched.has(one)) continue;
      const stored = [...left].find(
        ({ protocol, port, settings }) =>
          protocol === one.protocol && port === one.port && isAlike(one, { protocol, settings }),
      );
      if (stored === undefined) continue;
      matched.set(one, { stored, by: 'port' });
      left.delete(stored);
    }
  }
}

type Alike = (one: FleetProtocol, stored: Pick<StoredProtocol, 'protocol' | 'settings'>) => boolean;

function matchByKind({ declared, matched, left }: Matching): void {
  for (const stored of [...left]) {
    const alike = declared.filter((one) => one.protocol === stored.protocol && !matched.has(one));
    const storedAlike = [...left].filter((one) => one.protocol === stored.protocol);
    const [one] = alike;
    if (one === undefined || alike.length > 1 || storedAlike.length > 1) continue;
    if (one.name !== undefined) continue;
    matched.set(one, { stored, by: 'kind' });
    left.delete(stored);
  }
}
