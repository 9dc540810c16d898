interface Bytes {
  up: number;
  down: number;
}

/**
 * Xray counts a user's bytes inside of the protocol, so what it counts is what came out of it, to the byte,
 * for all transports.
 */
const overheadBytesMax = 0;

/** Says what is wrong with the bytes of a cell; undefined if nothing is. */
export function judgeBytes(given: { sent: Bytes; counted: Bytes; row: Bytes }): string | undefined {
  const { sent, counted, row } = given;
  for (const way of ['up', 'down'] as const) {
    if (row[way] !== counted[way]) {
      return `Core has ${row[way]} bytes ${way}, and Xray counted ${counted[way]}`;
    }
    const overhead = counted[way] - sent[way];
    if (overhead < 0 || overhead > overheadBytesMax) {
      return `Xray counted ${counted[way]} bytes ${way} of ${sent[way]} that were sent`;
    }
  }
  return undefined;
}
