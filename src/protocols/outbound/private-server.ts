import { BlockList, isIP } from 'node:net';

/**
 * The addresses to which Xray takes VLESS and Trojan without encryption, without those that are for examples in
 * documentation (192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24): no private network has them, so whoever names
 * one means a public server.
 */
const prefixes: readonly [address: string, bits: number, family: 'ipv4' | 'ipv6'][] = [
  ['0.0.0.0', 8, 'ipv4'],
  ['10.0.0.0', 8, 'ipv4'],
  ['100.64.0.0', 10, 'ipv4'],
  ['127.0.0.0', 8, 'ipv4'],
  ['169.254.0.0', 16, 'ipv4'],
  ['172.16.0.0', 12, 'ipv4'],
  ['192.0.0.0', 24, 'ipv4'],
  ['192.88.99.0', 24, 'ipv4'],
  ['192.168.0.0', 16, 'ipv4'],
  ['198.18.0.0', 15, 'ipv4'],
  ['224.0.0.0', 3, 'ipv4'],
  ['::', 127, 'ipv6'],
  ['fc00::', 7, 'ipv6'],
  ['fe80::', 10, 'ipv6'],
  ['ff00::', 8, 'ipv6'],
];
const privateDomains =
  /(^|\.)(lan|localdomain|example|invalid|localhost|test|local|home\.arpa|internal)$/;
const dotless = /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/;

const privateAddresses = new BlockList();
for (const prefix of prefixes) privateAddresses.addSubnet(...prefix);

/** Whether Xray takes this server without encryption: a private address, or a name of a private network. */
export function isPrivateServer(address: string): boolean {
  const bare = address.replace(/^\[(.*)\]$/, '$1');
  const version = isIP(bare);
  if (version !== 0) return privateAddresses.check(bare, version === 4 ? 'ipv4' : 'ipv6');
  const domain = bare.toLowerCase().replace(/\.$/, '');
  return privateDomains.test(domain) || dotless.test(domain);
}
