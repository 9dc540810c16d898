import fc from 'fast-check';
import { issuePath } from '../../../src/errors.ts';
import { type Outbound, outboundFaults } from '../../../src/protocols/outbound/outbound.ts';
import { outboundSample } from './outbound-samples.ts';
import { refusedParts, xrayRefusal } from './xray-verdict.ts';

// Core's check of outbounds against a real Xray: what Core takes, Xray takes, and what Core refuses, Xray refuses
// or Core has a reason of its own for.

/** Reasons for which Core refuses what this or that Xray takes. Each is a text of Core's messages. */
const ownReasons: readonly (readonly [message: RegExp, why: string])[] = [
  [
    /Unrecognized key/,
    'Xray ignores a field that it does not know, so a typing error becomes a default',
  ],
  [/^Only goes with/, 'Xray ignores a block of another network or security'],
  [
    /is public, so|^Is public, so/,
    'Xray before 26.7.11, and the list form in each version, sends readable traffic',
  ],
  [
    /^Must be a host name or an IP address/,
    'Xray takes any text as a host, and fails when it connects',
  ],
  [
    /^Must be tls with network hysteria|^Must be hysteria|^Is needed with network/,
    'it could never connect',
  ],
  [
    /^Too (small|big)|^Invalid input: expected (int|number)/,
    'Xray takes a port 0 and the like, and fails later',
  ],
  [/^Must be one of|^Invalid option/, 'Xray takes an unknown word as its default'],
  [/base64|^Must be 32 bytes/, 'Xray checks the length of a key when it is used'],
  [/^Must be false: Xray no longer/, 'Xray before June 2026 takes allowInsecure'],
  [/alpn with network/, 'the server would never answer on that protocol'],
  [
    /^Must be (ports|tcp, udp)/,
    'Xray takes an empty list or an unknown network, which match nothing',
  ],
  [
    /^Must be a whole number|^Must be above|^Must be up to 16 hex/,
    'Xray takes negative numbers here and there',
  ],
  [
    /^Must be (an address|a prefix|host:port|hex|a size|base64|like)/,
    'Xray checks it when it connects',
  ],
  [/^Must not have|^Does not go with/, 'older versions take it'],
  [/^Must be a UUID/, 'Xray ignores what follows the 32 digits'],
  [/^Needs password|^Must start with|^Must have/, 'older versions take it'],
  [/regular expression in Go/, 'Xray before 26.5 does not read the rules of a dns outbound'],
  [/^Must be at least|^Is needed with congestion/, 'older versions do not read it'],
];

export interface ComparisonResult {
  samples: number;
  accepted: number;
  /** What Core takes and Xray refuses: always a fault. */
  wronglyAccepted: { part: unknown; reason: string }[];
  /** What Core refuses without a reason of its own and Xray takes. */
  wronglyRefused: { part: unknown; reason: string }[];
}

/** Compares random outbounds. */
export async function runOutbounds(
  xrayPath: string,
  log: (line: string) => void,
  options: { samples?: number; seed?: number } = {},
): Promise<ComparisonResult> {
  const { samples = 1_500, seed = 28 } = options;
  const given = fc
    .sample(outboundSample, { numRuns: samples, seed })
    .map((one, at) => ({ ...one, tag: `sample-${at}` }));
  const verdicts = given.map((outbound) => ({ outbound, faults: outboundFaults(outbound) }));
  const accepted = verdicts.filter((one) => one.faults.length === 0).map((one) => one.outbound);
  const test = (outbounds: readonly Outbound[]) => xrayRefusal(xrayPath, { outbounds });
  const refused = await refusedParts(accepted, test);
  const result: ComparisonResult = {
    samples,
    accepted: accepted.length,
    wronglyAccepted: [...refused].map(([part, reason]) => ({ part, reason })),
    wronglyRefused: [],
  };
  for (const { outbound, faults } of verdicts) {
    const unexplained = faults.find(
      (fault) => !ownReasons.some(([message]) => message.test(fault.message)),
    );
    if (unexplained === undefined || (await test([outbound])) !== undefined) continue;
    result.wronglyRefused.push({
      part: outbound,
      reason: `${issuePath(unexplained.path)}: ${unexplained.message}`,
    });
  }
  log(
    `outbounds: ${samples} samples, Core takes ${accepted.length}; of these Xray refuses ${result.wronglyAccepted.length}; Core alone refuses ${result.wronglyRefused.length}`,
  );
  return result;
}
