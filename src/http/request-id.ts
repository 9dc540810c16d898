import { randomBytes } from 'node:crypto';

/** Bounds what one process may serve, at 100,000 requests a second for three years. */
const digits = 13;
const zero = 48;

const prefix = randomBytes(4).toString('hex');
let count = 0;

/**
 * What a request is called by: unique over processes and restarts, and cheap, since its text is made
 * only for the wire, in place, and for the log.
 */
export function nextRequestNumber(): number {
  count += 1;
  return count;
}

/** A random prefix a process, and the number. */
export function requestIdOf(requestNumber: number): string {
  return `${prefix}-${String(requestNumber).padStart(digits, '0')}`;
}

/** Writes the number over that of another id, which ends at `end`. */
export function writeRequestNumber(bytes: Uint8Array, end: number, requestNumber: number): void {
  let rest = requestNumber;
  for (let at = end - 1; at >= end - digits; at -= 1) {
    const tens = Math.floor(rest / 10);
    bytes[at] = zero + rest - tens * 10;
    rest = tens;
  }
}
