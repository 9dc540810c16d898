import t from 'tap';
import { get, registerTestNode, startTestApi, until } from '../support/api.ts';
import { startPlainNginx } from '../support/proxies.ts';
import { exchange } from '../support/raw-http.ts';

// docs/http.md says what a client that sends these sees, and why Core alone cannot do better.

const host = 'Host: core\r\n';
const lines = (count: number): string =>
  Array.from({ length: count }, (_, index) => `x-${index}: v\r\n`).join('');

/** uWebSockets.js sees the beginning of a request in these, and waits for the rest. */
const waitedFor: Record<string, readonly string[]> = {
  'HTTP/1.0': [`GET /healthz HTTP/1.0\r\n${host}\r\n`],
  'HTTP/1.0 without a host': ['GET /healthz HTTP/1.0\r\n\r\n'],
  'HTTP/0.9': ['GET /healthz\r\n'],
  'HTTP/2 by prior knowledge': ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0'],
  'an unknown version': [`GET /healthz HTTP/1.2\r\n${host}\r\n`],
  'bare LF': ['GET /healthz HTTP/1.1\nHost: core\n\n'],
  'bare LF after one header': [`GET /healthz HTTP/1.1\r\n${host}A: b\n\r\n`],
  'no header at all': ['GET /healthz HTTP/1.1\r\n\r\n'],
  '49 headers': [`GET /healthz HTTP/1.1\r\n${host}${lines(48)}\r\n`],
  'a folded header': [`GET /healthz HTTP/1.1\r\n${host}A: b\r\n c\r\n\r\n`],
  'a header with an underscore': [`GET /healthz HTTP/1.1\r\n${host}x_y: b\r\n\r\n`],
  'a header without a colon': [`GET /healthz HTTP/1.1\r\n${host}A\r\n\r\n`],
  'a space before the colon': ['GET /healthz HTTP/1.1\r\nHost : core\r\n\r\n'],
  'NUL in a header': [`GET /healthz HTTP/1.1\r\n${host}A: b\0\r\n\r\n`],
  'two spaces': [`GET  /healthz HTTP/1.1\r\n${host}\r\n`],
  'a full URL': [`GET http://core/healthz HTTP/1.1\r\n${host}\r\n`],
  'OPTIONS of the whole server': [`OPTIONS * HTTP/1.1\r\n${host}\r\n`],
  CONNECT: [`CONNECT core:443 HTTP/1.1\r\n${host}\r\n`],
  'a TLS greeting': ['\x16\x03\x01\x00\xf1\x01\x00\x00\xed\x03\x03'],
};

/** uWebSockets.js closes these at once, before Core hears of them. */
const closedAtOnce: Record<string, readonly string[]> = {
  'no host': ['GET /healthz HTTP/1.1\r\nAccept: */*\r\n\r\n'],
  'an unknown method': [`BREW /healthz HTTP/1.1\r\n${host}\r\n`],
  'a method in lower case': [`get /healthz HTTP/1.1\r\n${host}\r\n`],
  'a length of ten digits': [
    `POST /node/usage HTTP/1.1\r\n${host}Content-Length: 4294967296\r\n\r\n`,
  ],
  'a length below zero': [`POST /node/usage HTTP/1.1\r\n${host}Content-Length: -1\r\n\r\n`],
  'headers over 4 KiB in pieces': [
    `GET /healthz HTTP/1.1\r\n${host}A: `,
    ...Array.from({ length: 10 }, () => 'a'.repeat(500)),
    '\r\n\r\n',
  ],
};

t.test('what uWebSockets.js cannot read is never served, and delays nobody', async (t) => {
  const api = await startTestApi(t);
  const node = await registerTestNode(api);
  const kinds = Object.entries({ ...waitedFor, ...closedAtOnce });
  // Debian's nginx speaks HTTP/1.0 to what is behind it; from 1.29.7 on it speaks 1.1.
  const plainNginx = await startPlainNginx(t, api.port);
  const throughNginx = fetch(`http://127.0.0.1:${plainNginx}/healthz`);
  let closed = 0;
  const all = kinds.map(async ([name, parts]) => {
    const { answers, closed: isClosed } = await exchange(api.port, parts);
    t.ok(isClosed, `${name}: closed`);
    t.same(answers, [], `${name}: without an answer`);
    closed += 1;
  });
  await until(
    () => get(api, '/node/config/latest', { node }),
    ({ status }) => {
      if (status !== 200) throw new Error(`answered ${status} meanwhile`);
      return closed === kinds.length;
    },
  );
  await Promise.all(all);
  t.equal((await throughNginx).status, 502, 'nginx with only a proxy_pass');
});

t.test('unusual but valid requests are served', async (t) => {
  const api = await startTestApi(t);
  for (const [name, text] of Object.entries({
    '48 headers': `GET /healthz HTTP/1.1\r\n${host}${lines(47)}\r\n`,
    'a header of 60 KB in one piece': `GET /healthz HTTP/1.1\r\n${host}A: ${'a'.repeat(60_000)}\r\n\r\n`,
    'an empty host': 'GET /healthz HTTP/1.1\r\nHost:\r\n\r\n',
  })) {
    const { answers } = await exchange(api.port, [text], { answersMax: 1 });
    t.equal(answers[0]?.status, 200, name);
  }
});
