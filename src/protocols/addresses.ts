import { isIP, SocketAddress } from 'node:net';
import { z } from 'zod';

// Names, addresses and ports in the settings of protocols.

export const hostName = z
  .string()
  .max(253)
  .regex(/^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/, 'Must be a host name or an IPv4 address');
/** Where client apps connect: a host name or an address. */
export const publicHost = z
  .string()
  .max(253)
  .regex(/^[A-Za-z0-9:]([A-Za-z0-9.:-]*[A-Za-z0-9:])?$/, 'Must be a host name or an IP address');
export const httpPath = z
  .string()
  .max(255)
  .regex(/^\/[!-~]*$/, 'Must start with / and hold printable ASCII only');
/** A path on the node. Core cannot check that the file exists. */
export const filePath = z.string().max(4_096).regex(/^\//, 'Must be an absolute path on the node');
export const port = z.int().min(1).max(65_535);

/** Linux takes 107 bytes for the path of a socket. */
const socketNameCharsMax = 107;
/** A path, perhaps with the permissions that Xray gives the socket, or `@` and an abstract name. */
const socketPattern = /^(\/[!-+\--~]*[!-+\--.0-~](,0?[0-7]{3})?|@@?[!-?A-~]+)$/;

function isListenIp(given: string): boolean {
  return isIP(given) !== 0 && !given.includes('%');
}

const noZone = 'Must be an IP address without a zone: Xray cannot listen on one';
/** An address of the node. Xray takes `fe80::1%eth0` for a host name and does not start. */
export const listenIp = z.string().refine(isListenIp, noZone);
/** An address of the node, or a unix socket. */
export const listenIpOrSocket = z.string().refine((given) => {
  if (!isUnixSocket(given)) return isListenIp(given);
  return socketPattern.test(given) && socketName(given).length <= socketNameCharsMax;
}, `${noZone}, or a unix socket: /path, /path,0660 or @name`);

/** Whether `listen` names a unix socket. Then the port is for share links only. */
export function isUnixSocket(listen: string): boolean {
  return listen.startsWith('/') || listen.startsWith('@');
}

/** The name of a unix socket without the permissions. */
export function socketName(listen: string): string {
  return listen.startsWith('/') ? (listen.split(',')[0] ?? listen) : listen;
}

/** Whether only programs on the node itself can connect to what listens there. */
export function isLocal(listen: string | undefined): boolean {
  if (listen === undefined) return false;
  return isUnixSocket(listen) || /^(127\.|::1$|::ffff:127\.)/i.test(canonicalIp(listen));
}

/** The one form of an address: `::` of `0:0:0:0:0:0:0:0`. Other text comes back as it is. */
export function canonicalIp(address: string): string {
  const version = isIP(address);
  if (version === 0) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  return new SocketAddress({ address, family: version === 6 ? 'ipv6' : 'ipv4' }).address;
}

/** Where a protocol is published, if that differs from the node's host and the port. */
export const publicAddresses = { publicHost: publicHost.optional(), publicPort: port.optional() };
