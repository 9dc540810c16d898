import { z } from 'zod';
import { hiddenFault } from '../text.ts';
import { hostFault, ipFault, isAddress, isHost } from './address.ts';

// Fields that the wire and fleet files have in common.

/** Text on one line, without characters that a reader does not see. */
export const line = z.string().refine((given) => hiddenFault(given) === undefined, {
  error: (issue) => hiddenFault(String(issue.input)),
});

/** A host name or an address; empty if it is not known. */
export const hostOrNone = z.string().refine((given) => given === '' || isHost(given), hostFault);

/** An address; empty if it is not known. */
export const ipOrNone = z.string().refine((given) => given === '' || isAddress(given), ipFault);
