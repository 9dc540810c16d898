import { isIP, isIPv4 } from 'node:net';
import { z } from 'zod';
import { line } from '../../contract/fields.ts';
import { goRegexpFault } from './go-regexp.ts';

// Lists of addresses and of domains as Xray's rules, final rules and DNS servers have them. Core cannot know
// the geo files of a node, so it checks how a name of them is written and not whether it is there.

const listMax = 10_000;
const entryCharsMax = 1_024;

/** What is wrong with an entry of a list of addresses; undefined if nothing is. */
function addressFault(entry: string): string | undefined {
  const bare = entry.replace(/^!+/, '');
  const geo = /^(geoip:|ext:|ext-ip:)(.*)$/s.exec(bare);
  if (geo !== null) {
    const isGeoIp = geo[1] === 'geoip:';
    return geoFault(geo[2] ?? '', isGeoIp, isGeoIp ? 'geoip:private' : 'ext:file.dat:code');
  }
  const [address = '', prefix, ...more] = bare.split('/');
  const fault = 'Must be an address, a prefix like 10.0.0.0/8, geoip:code or ext:file.dat:code';
  if (isIP(address) === 0 || address.includes('%') || more.length > 0) return fault;
  if (prefix === undefined) return undefined;
  const bitsMax = isIPv4(address) || isMappedIPv4(address) ? 32 : 128;
  if (/^\d{1,3}$/.test(prefix) && Number(prefix) <= bitsMax) return undefined;
  return `Must have a prefix length from 0 to ${bitsMax}`;
}

/** `::ffff:192.0.2.1` in any of its forms, which Go reads as the IPv4 address. */
function isMappedIPv4(address: string): boolean {
  const canonical = new URL(`http://[${isIPv4(address) ? '::1' : address}]`).hostname;
  return canonical.startsWith('[::ffff:');
}

/** What is wrong with an entry of a list of domains; undefined if nothing is. */
export function domainFault(entry: string): string | undefined {
  const at = entry.indexOf(':');
  const kind = at === -1 ? '' : entry.slice(0, at);
  const value = at === -1 ? entry : entry.slice(at + 1);
  switch (kind) {
    case 'geosite':
      return geoFault(value, true, 'geosite:google');
    case 'ext':
    case 'ext-domain':
    case 'ext-site':
      return geoFault(value, false, 'ext:file.dat:code');
    case 'regexp':
      return value === '' ? 'Must have an expression after regexp:' : goRegexpFault(value);
    case 'dotless':
      return dotlessFault(value);
    case 'domain':
    case 'full':
    case 'keyword':
    case '':
      return nameFault(value);
    default:
      return `Must begin with domain:, full:, keyword:, regexp:, dotless:, geosite: or ext: if it has a colon`;
  }
}

function nameFault(value: string): string | undefined {
  if (value === '') return 'Must have a domain';
  return /[\s/]/.test(value)
    ? 'Must be a domain or a part of one, without spaces and /'
    : undefined;
}

function dotlessFault(value: string): string | undefined {
  if (value.includes('.')) return 'Must have no dot after dotless:';
  return goRegexpFault(`^[^.]*${value}[^.]*$`);
}

/** What follows `geoip:` or `geosite:`, or a file and a colon. */
function geoFault(given: string, isNamed: boolean, example: string): string | undefined {
  const [file, ...rest] = isNamed ? ['standard', given] : given.split(':');
  const code = rest.join(':');
  const fault = `Must have a name, like ${example}`;
  if (file === undefined || file === '' || rest.length === 0) return fault;
  if (/[/\\]/.test(file)) return 'Must name a file in the folder of the geo files, without a path';
  return /^!*[A-Za-z0-9_.-]+(@!?[A-Za-z0-9_.-]+)*$/.test(code) ? undefined : fault;
}

const entry = (faultOf: (given: string) => string | undefined) =>
  line
    .min(1)
    .max(entryCharsMax)
    .refine((given) => faultOf(given) === undefined, {
      error: (issue) => faultOf(String(issue.input)) ?? '',
    });

/** Addresses, prefixes and names of geo files. */
export const addressList = z.array(entry(addressFault)).min(1).max(listMax);
/** The same for a DNS server, whose list may have `*`: "prefer these, and take others, too". */
export const expectedList = z
  .array(entry((given) => (given === '*' ? undefined : addressFault(given))))
  .max(listMax);
/** Domains, expressions and names of geo files. */
export const domainList = z.array(entry(domainFault)).min(1).max(listMax);
/** An expression in Go's syntax. */
export const goRegexp = entry(goRegexpFault);
