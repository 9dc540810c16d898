import { gzipSync } from 'node:zlib';

/** A request that is as much work as a node can ask of its route. */
interface HeavyRequest {
  name: string;
  path: string;
  body: Buffer;
  /** Sent in chunks of this many bytes, without a declared length. */
  chunkBytes?: number;
  /** It is so far over its bound that the api closes the connection before all of it is sent. */
  isCutOff?: boolean;
}

const bodyBytes = 4_194_304;
const reportBytes = 131_072;
const entries = 10_000;

/** `head`, then `unit` as often as it fits into `bytes`, then `tail`. */
function filled(bytes: number, head: string, unit: string, tail: string): Buffer {
  const times = Math.floor((bytes - head.length - tail.length) / Buffer.byteLength(unit));
  return Buffer.from(head + unit.repeat(times) + tail);
}

/** One object with as many different names as fit into `bytes`. */
function manyNames(
  bytes: number,
  head: string,
  tail: string,
  nameOf: (at: number) => string,
): Buffer {
  const members: string[] = [];
  let length = head.length + tail.length;
  for (let at = 0; length < bytes - 24; at += 1) {
    const member = `"${nameOf(at)}":0`;
    members.push(member);
    length += member.length + 1;
  }
  return Buffer.from(head + members.join(',') + tail);
}

const listed = (name: string, make: (at: number) => string): Buffer =>
  Buffer.from(`{"${name}":[${Array.from({ length: entries }, (_, at) => make(at)).join(',')}]}`);

/** A time that Core accepts on whatever day this runs: it refuses times in the future. */
const recently = new Date(Date.now() - 3_600_000).toISOString();
const usageEntry = (at: number, more = ''): string =>
  `{"userId":${at + 1},"subscriptionId":7,"nodeProtocolId":3,"bytesUp":1000,"bytesDown":2000,` +
  `"recordedAt":"${recently}"${more}}`;
const sessionEvent = (at: number): string =>
  `{"userId":${at + 1},"protocol":"vless","eventType":"online","occurredAt":"${recently}",` +
  `"ipAddress":"198.51.100.7"}`;
const unknown = '{"entries":[],"more":';

/** Bodies of a usage post. Core reads those of the other two ingest routes in the same way. */
function usageBodies(): Record<string, Buffer> {
  return {
    'empty entries, as many as a body may have': listed('entries', () => '{}'),
    'empty entries, as many as fit': filled(bodyBytes, '{"entries":[', '{},', '{}]}'),
    'entries that are right but for one': listed('entries', (at) =>
      usageEntry(at, at === entries - 1 ? ',"odd":1e1' : ''),
    ),
    'entries that zod has to read': listed('entries', (at) => usageEntry(at, ',"odd":1e1')),
    'arrays that are not closed': filled(bodyBytes, '', '[', ''),
    'objects within each other, not closed': filled(bodyBytes, '', '{"a":', ''),
    'arrays within each other': Buffer.from(
      `${unknown}${'['.repeat(2_000_000)}${']'.repeat(2_000_000)}}`,
    ),
    'empty objects in an unknown field': filled(bodyBytes, `${unknown}[`, '{},', '{}]}'),
    'zeros in an unknown field': filled(bodyBytes, `${unknown}[`, '0,', '0]}'),
    'long numbers in an unknown field': filled(
      bodyBytes,
      `${unknown}[`,
      '1.7976931348623157081e308,',
      '0]}',
    ),
    'one number of four million digits': filled(bodyBytes, unknown, '7', '}'),
    'one string of escapes': filled(bodyBytes, `${unknown}"`, '\\ud83d\\ude00', '"}'),
    'different names in one object': manyNames(bodyBytes, `${unknown}{`, '}}', (at) =>
      at.toString(36),
    ),
    'numbers as names in one object': manyNames(bodyBytes, `${unknown}{`, '}}', (at) =>
      String(at * 4_099),
    ),
    'one name again and again': filled(bodyBytes, `${unknown}{`, '"a":0,', '"a":0}}'),
    'white space': filled(bodyBytes, '', ' ', ''),
  };
}

function reportBodies(): Record<string, Buffer> {
  const details = '{"message":"m","details":{';
  return {
    'empty arrays in details': filled(reportBytes, `${details}"a":[`, '[],', '[]]}}'),
    'arrays within each other in details': Buffer.from(
      `${details}"a":${'['.repeat(65_000)}${']'.repeat(65_000)}}}`,
    ),
    'objects within each other in details': Buffer.from(
      `${details}"a":${'{"a":'.repeat(21_000)}1${'}'.repeat(21_000)}}}`,
    ),
    'different names in details': manyNames(reportBytes, details, '}}', (at) => at.toString(36)),
    'escapes in details': filled(reportBytes, `${details}"a":"`, '\\u0000\\ud800', '"}}'),
    'escapes as a name in details': filled(reportBytes, `${details}"`, '\\u0000', '":1}}'),
  };
}

/** All requests that could hold an api process. */
export function heavyRequests(): HeavyRequest[] {
  const plain: HeavyRequest[] = [];
  const add = (path: string, bodies: Record<string, Buffer>): void => {
    for (const [name, body] of Object.entries(bodies)) plain.push({ name, path, body });
  };
  add('/node/usage', usageBodies());
  add('/node/session-events', {
    'as many events as a body may have': listed('events', sessionEvent),
    'empty events': listed('events', () => '{}'),
  });
  add('/node/outbound-usage', {
    'as many items as a body may have': listed(
      'items',
      (at) => `{"tag":"t${at}","bytesUp":1,"bytesDown":2}`,
    ),
    'long tags': filled(
      bodyBytes,
      '{"items":[',
      `{"tag":"${'é'.repeat(240)}","bytesUp":9007199254740991,"bytesDown":1},`,
      '{"tag":"t","bytesUp":0,"bytesDown":0}]}',
    ),
  });
  add('/node/error', reportBodies());
  for (const path of ['/node/heartbeat', '/node/config/applied', '/node/register']) {
    const body = filled(bodyBytes, '{"revision":[', '[],', '[]]}');
    plain.push({ name: 'empty arrays', path, body, isCutOff: true });
  }
  const [first] = plain;
  const chunked: HeavyRequest[] =
    first === undefined
      ? []
      : [1, 65, 100].map((chunkBytes) => ({
          name: `in chunks of ${chunkBytes}`,
          path: first.path,
          body: filled(Math.min(bodyBytes, chunkBytes * 1_000_000), '{"entries":[', ' ', ']}'),
          chunkBytes,
        }));
  return [...plain, ...chunked];
}

/** The request as bytes, with a plain or a compressed body. */
export function heavyBytes(heavy: HeavyRequest, authKey: string, isGzip: boolean): Buffer {
  const { path, chunkBytes } = heavy;
  const body = isGzip ? gzipSync(heavy.body, { level: 1 }) : heavy.body;
  const lines = [
    `POST ${path} HTTP/1.1`,
    'Host: core',
    `x-node-auth-key: ${authKey}`,
    'Content-Type: application/json',
    ...(isGzip ? ['Content-Encoding: gzip'] : []),
    chunkBytes === undefined ? `Content-Length: ${body.length}` : 'Transfer-Encoding: chunked',
  ];
  const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`);
  return Buffer.concat([head, chunkBytes === undefined ? body : chunksOf(body, chunkBytes)]);
}

function chunksOf(body: Buffer, chunkBytes: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length; at += chunkBytes) {
    const chunk = body.subarray(at, at + chunkBytes);
    parts.push(Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from('\r\n'));
  }
  return Buffer.concat([...parts, Buffer.from('0\r\n\r\n')]);
}
