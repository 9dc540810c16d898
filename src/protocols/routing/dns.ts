import { z } from 'zod';
import { isAddress } from '../../contract/fields.ts';
import { domainFault, domainList, expectedList } from './address-list.ts';
import { host, integer, port, tag, word } from './values.ts';

// Xray's DNS server: https://xtls.github.io/en/config/dns.html, infra/conf/dns.go of 26.7.28.

const schemes = ['https', 'https+local', 'h2c', 'h2c+local', 'tcp', 'tcp+local', 'quic+local'];
const addressText = `Must be an address, localhost, fakedns, or a URL with ${schemes.join(', ')}`;

const serverAddress = z
  .string()
  .max(2_048)
  .refine((given) => {
    if (isAddress(given) || given === 'localhost' || given === 'fakedns') return true;
    const [scheme = '', rest = ''] = given.split('://');
    return schemes.includes(scheme) && URL.canParse(`http://${rest}`) && rest !== '';
  }, addressText);

const queryStrategy = word(['UseIP', 'UseIPv4', 'UseIPv6', 'UseSystem']);
const clientIp = z.string().refine(isAddress, 'Must be an IP address');

const server = z.strictObject({
  address: serverAddress,
  port: port.optional(),
  clientIp: clientIp.optional(),
  domains: domainList.optional(),
  expectedIPs: expectedList.optional(),
  /** The older name of `expectedIPs`. */
  expectIPs: expectedList.optional(),
  unexpectedIPs: expectedList.optional(),
  skipFallback: z.boolean().optional(),
  finalQuery: z.boolean().optional(),
  queryStrategy: queryStrategy.optional(),
  tag: tag.optional(),
  timeoutMs: integer.optional(),
  disableCache: z.boolean().optional(),
  serveStale: z.boolean().optional(),
  serveExpiredTTL: integer.optional(),
});

/** A name or an address; Xray takes `#3` as an answer with that code, too. */
const hostAnswer = z.union([host, z.string().regex(/^#\d{1,5}$/)], {
  error: 'Must be a host name, an address, or # and a response code',
});
const hosts = z
  .record(z.string().max(1_024), z.union([hostAnswer, z.array(hostAnswer).min(1).max(64)]))
  .superRefine((given, context) => {
    for (const name of Object.keys(given)) {
      const message = domainFault(name);
      if (message !== undefined) context.addIssue({ code: 'custom', path: [name], message });
    }
  });

export const dnsSettings = z.strictObject({
  servers: z
    .array(z.union([serverAddress, server]))
    .max(64)
    .optional(),
  hosts: hosts.optional(),
  clientIp: clientIp.optional(),
  tag: tag.optional(),
  queryStrategy: queryStrategy.optional(),
  disableCache: z.boolean().optional(),
  serveStale: z.boolean().optional(),
  serveExpiredTTL: integer.optional(),
  disableFallback: z.boolean().optional(),
  disableFallbackIfMatch: z.boolean().optional(),
  enableParallelQuery: z.boolean().optional(),
  useSystemHosts: z.boolean().optional(),
});
