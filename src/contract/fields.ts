import { isIP } from 'node:net';
import { z } from 'zod';
import { hiddenFault } from '../text.ts';

// Fields that the wire, fleet files and the command line have in common.

const hostCharsMax = 253;
const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i;

export const hostFault = 'Must be a host name (letters, digits, - and .) or an IP address';
export const ipFault = 'Must be an IP address, without a zone';

/** An IPv4 or IPv6 address, the latter without brackets and without a zone (`%eth0`). */
export function isAddress(text: string): boolean {
  return isIP(text) !== 0 && !text.includes('%');
}

/**
 * A host name as in RFC 1123, or an address. Names in other scripts are given as DNS has them, `xn--…`. The
 * last label is not a number, because resolvers and browsers would read the name as an address.
 */
export function isHost(text: string): boolean {
  if (isAddress(text)) return true;
  if (text.length > hostCharsMax) return false;
  const labels = text.split('.');
  return (
    labels.every((one) => label.test(one)) && !/^(\d+|0x[0-9a-f]*)$/i.test(labels.at(-1) ?? '')
  );
}

/** Text on one line, without characters that a reader does not see. */
export const line = z.string().refine((given) => hiddenFault(given) === undefined, {
  error: (issue) => hiddenFault(String(issue.input)),
});

/** A host name or an address; empty if it is not known. */
export const hostOrNone = z.string().refine((given) => given === '' || isHost(given), hostFault);

/** An address; empty if it is not known. */
export const ipOrNone = z.string().refine((given) => given === '' || isAddress(given), ipFault);
