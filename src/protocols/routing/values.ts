import { isIP } from 'node:net';
import { z } from 'zod';
import { isAddress, line } from '../../contract/fields.ts';

// Values that Xray's outbounds, rules and DNS have in common.

const textCharsMax = 4_096;

/** Text on one line. */
export const text = line.max(textCharsMax);
/** Text on one line that is not empty. */
export const someText = line.min(1).max(textCharsMax);
/** A tag of an outbound, an inbound, a balancer or a rule. */
export const tag = line.min(1).max(255);

/** One of these words. Xray does not mind upper and lower case in them, so Core does not either. */
export function word<const T extends readonly [string, ...string[]]>(
  words: T,
): z.ZodType<string, string> {
  const known = new Set(words.map((one) => one.toLowerCase()));
  return z
    .string()
    .refine((given) => known.has(given.toLowerCase()), `Must be one of ${words.join(', ')}`);
}

const domainStrategies = [
  'AsIs',
  'UseIP',
  'UseIPv4',
  'UseIPv6',
  'UseIPv4v6',
  'UseIPv6v4',
  'ForceIP',
  'ForceIPv4',
  'ForceIPv6',
  'ForceIPv4v6',
  'ForceIPv6v4',
] as const;
/** How Xray resolves a domain before it connects. */
export const domainStrategy = word(domainStrategies);

/** The level of a user in the policy. */
export const level = z.int().min(0).max(255);
export const port = z.int().min(1).max(65_535);

const integerMax = 2_147_483_647;
/** A whole number of Xray's, which has 32 bits. */
export const integer = z.int().min(0).max(integerMax);
const rangeText = z
  .string()
  .regex(/^\d{1,9}(-\d{1,9})?$/, 'Must be a whole number or two with a dash, like 100-200');
/** A number, or a range like `100-200`. */
export const range = z.union([z.int().min(0).max(999_999_999), rangeText], {
  error: 'Must be a whole number or two with a dash, like "100-200"',
});
/** The same without zero. */
export const positiveRange = range.refine(
  (given) =>
    String(given)
      .split('-')
      .every((part) => Number(part) > 0),
  'Must be above zero',
);

/** A server: a host name or an address. Xray takes any text, and fails when it connects. */
export const host = z
  .string()
  .max(255)
  .refine(isServerHost, 'Must be a host name or an IP address, without a zone');

/** Host names may have underscores here: servers have names of internal networks. */
function isServerHost(given: string): boolean {
  const bare = given.startsWith('[') && given.endsWith(']') ? given.slice(1, -1) : given;
  if (isIP(bare) !== 0) return isAddress(bare);
  if (bare !== given) return false;
  return /^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?$/.test(given) && !/^[\d.]+$/.test(given);
}

const portText = /^\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*$/;
const portsFault = 'Must be ports up to 65535, like 53,443,1000-2000';
/** A port, or ports as text: `53,443,1000-2000`. */
export const ports = z.union(
  [z.int().min(0).max(65_535), z.string().refine(arePorts, portsFault)],
  {
    error: portsFault,
  },
);

function arePorts(given: string): boolean {
  if (!portText.test(given)) return false;
  return given.split(',').every((one) => {
    const [from = 0, to = from] = one.split('-').map(Number);
    return from <= to && to <= 65_535;
  });
}

const networkText = z
  .string()
  .refine(
    (given) => given.split(',').every((one) => one === 'tcp' || one === 'udp'),
    'Must be tcp, udp, or tcp,udp',
  );
/** Networks as text, or as a list. */
export const networks = z.union(
  [
    networkText,
    z
      .array(z.enum(['tcp', 'udp']))
      .min(1)
      .max(2),
  ],
  {
    error: 'Must be tcp, udp, or tcp,udp',
  },
);

/** How many bytes a text in base64url has; -1 if it is none. */
export function bytesOfBase64Url(given: string): number {
  return /^[A-Za-z0-9_-]*$/.test(given) ? Buffer.from(given, 'base64url').length : -1;
}

/** A record of HTTP headers. */
export const headers = z.record(
  z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,255}$/, 'Must be the name of an HTTP header'),
  text,
);
