import type { ProtocolRow } from './node-rows.ts';

// What is known not to work from which version of Xray on. Each line was seen by running that version, and
// docs/protocols.md says the same.

interface Requirement {
  /** The first version that can do it. */
  since: readonly [number, number, number];
  /** Whether a configuration with the protocol stops an older Xray from starting at all. */
  stopsXray: boolean;
  needs: (protocol: Pick<ProtocolRow, 'protocol' | 'settings'>) => boolean;
  /** What an older version does, after `the node runs …, which`. */
  lacks: string;
}

const requirements: readonly Requirement[] = [
  {
    since: [26, 3, 23],
    stopsXray: true,
    needs: ({ protocol }) => protocol === 'HYSTERIA2',
    lacks: 'has no such inbound: Core leaves the protocol out of its configuration',
  },
  {
    since: [26, 4, 13],
    stopsXray: false,
    needs: ({ protocol }) => protocol === 'HYSTERIA2',
    lacks: 'counts no bytes of its users: no limit applies to them',
  },
  {
    since: [26, 5, 3],
    stopsXray: false,
    needs: ({ protocol }) => protocol === 'HYSTERIA2',
    lacks: 'sends no UDP to clients with Xray 26.5.3 or newer',
  },
];

/** The protocols that some version of Xray cannot run. */
export const protocolsWithRequirements = ['HYSTERIA2'] as const;

/** What a node's version of Xray cannot do for one of its protocols. */
export interface VersionFault {
  nodeProtocolId: number;
  /** Whether Core leaves the protocol out of the configuration. */
  isLeftOut: boolean;
  message: string;
}

/**
 * What a version of Xray cannot do for these protocols, one fault for each protocol.
 * @param version As a node reports it, like `26.7.28` or `Xray 26.7.28 (Xray, …)`. If it is not known, or
 * holds no version, there is no fault.
 */
export function versionFaults(
  version: string | null | undefined,
  protocols: readonly Pick<ProtocolRow, 'id' | 'protocol' | 'settings'>[],
): VersionFault[] {
  const parsed = parseVersion(version);
  if (parsed === undefined) return [];
  return protocols.flatMap((row) => {
    const missing = requirements.find(({ since, needs }) => needs(row) && isOlder(parsed, since));
    if (missing === undefined) return [];
    const { since, stopsXray, lacks } = missing;
    const message = `${row.protocol} needs Xray ${since.join('.')} or newer; the node runs ${parsed.join('.')}, which ${lacks}`;
    return [{ nodeProtocolId: row.id, isLeftOut: stopsXray, message }];
  });
}

/** Leaves out the protocols that would stop the node's version of Xray from starting. */
export function protocolsThatStart(
  version: string | null | undefined,
  protocols: readonly ProtocolRow[],
): ProtocolRow[] {
  const faults = versionFaults(version, protocols);
  const leftOut = new Set(
    faults.filter(({ isLeftOut }) => isLeftOut).map(({ nodeProtocolId }) => nodeProtocolId),
  );
  return protocols.filter(({ id }) => !leftOut.has(id));
}

/** The older one of two versions as nodes report them. One that holds no version counts as the newest. */
export function olderVersion(one: string | null, other: string | null): string | null {
  const [left, right] = [parseVersion(one), parseVersion(other)];
  if (left === undefined) return right === undefined ? one : other;
  return right !== undefined && isOlder(right, left) ? other : one;
}

/** The first number with dots in a text. A part that is missing is 0. */
export function parseVersion(
  text: string | null | undefined,
): readonly [number, number, number] | undefined {
  const found = /(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?/.exec(text ?? '');
  if (found === null) return undefined;
  return [Number(found[1]), Number(found[2]), Number(found[3] ?? 0)];
}

function isOlder(
  version: readonly [number, number, number],
  than: readonly [number, number, number],
): boolean {
  const at = version.findIndex((part, index) => part !== than[index]);
  return at !== -1 && (version[at] ?? 0) < (than[at] ?? 0);
}
