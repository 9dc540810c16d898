/** One HTTP answer, as it came over the connection. */
export interface Answer {
  status: number;
  /** All values of each header, by its name in lower case. */
  headers: Map<string, string[]>;
  body: Buffer;
}

type Parsed =
  | { outcome: 'answer'; answer: Answer; rest: Buffer }
  | { outcome: 'incomplete' }
  | { outcome: 'malformed'; reason: string };

const headBytesMax = 16_384;

/**
 * Takes the first answer from the bytes that a connection has received. It is strict on purpose: an
 * answer that only a lenient client can read is a fault of the server.
 */
export function parseAnswer(received: Buffer, isHead = false): Parsed {
  const headEnd = received.indexOf('\r\n\r\n');
  if (headEnd === -1) {
    if (received.length > headBytesMax) return malformed('the head does not end');
    return { outcome: 'incomplete' };
  }
  const [statusLine = '', ...lines] = received.toString('latin1', 0, headEnd).split('\r\n');
  const matched = /^HTTP\/1\.1 (\d{3}) [\x20-\x7e]*$/.exec(statusLine);
  if (matched === null) return malformed(`status line ${JSON.stringify(statusLine)}`);
  const status = Number(matched[1]);
  const headers = new Map<string, string[]>();
  for (const line of lines) {
    const header = /^([A-Za-z-]+): ([\x20-\x7e]*)$/.exec(line);
    if (header === null) return malformed(`header ${JSON.stringify(line)}`);
    const name = (header[1] ?? '').toLowerCase();
    headers.set(name, [...(headers.get(name) ?? []), header[2] ?? '']);
  }
  const start = headEnd + 4;
  if (status === 304 || isHead) {
    const answer = { status, headers, body: Buffer.alloc(0) };
    return { outcome: 'answer', answer, rest: received.subarray(start) };
  }
  const length = headers.get('content-length');
  if (length?.length !== 1 || !/^\d+$/.test(length[0] ?? '')) {
    return malformed(`content-length ${JSON.stringify(length)}`);
  }
  const end = start + Number(length[0]);
  if (received.length < end) return { outcome: 'incomplete' };
  const answer = { status, headers, body: received.subarray(start, end) };
  return { outcome: 'answer', answer, rest: received.subarray(end) };
}

function malformed(reason: string): Parsed {
  return { outcome: 'malformed', reason };
}
