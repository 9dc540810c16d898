import { gzipSync } from 'node:zlib';
import { createRandom, integerIn, nodeSeed, type Random } from '../simulator/random.ts';
import { validRequest } from './bodies.ts';
import { flip, mutate, truncate } from './mutate.ts';

export interface FuzzCase {
  /** Sent one after the other, each in a packet of its own if the kernel allows it. */
  parts: Buffer[];
  /**
   * What a whole request asks for: exactly one answer must come. Undefined if the head or the framing is
   * damaged. Then silence and a closed connection are right, too.
   */
  asks: { method: string; path: string } | undefined;
  /** The method is HEAD, and an answer to it has no body. */
  isHead: boolean;
}

type Sent = Omit<FuzzCase, 'isHead'>;

interface Draft {
  method: string;
  path: string;
  headers: string[];
  body: Buffer;
}

/** 16 MB of spaces in 16 KB of gzip. */
const bomb = gzipSync(Buffer.alloc(16_000_000, 0x20), { level: 9 });

/** The case with this number. The same seed and number give the same case. */
export function fuzzCase(seed: number, index: number, authKey: string): FuzzCase {
  const random = createRandom(nodeSeed(seed, index));
  const valid = validRequest(random);
  const draft: Draft = {
    method: valid.method,
    path: valid.path,
    headers: ['Host: core', `x-node-auth-key: ${authKey}`, 'Content-Type: application/json'],
    body: mutate(random, Buffer.from(valid.body), Buffer.from(validRequest(random).body)),
  };
  if (random() < 0.3) compress(random, draft);
  if (random() < 0.25) changeHeaders(random, draft);
  const sent = send(random, draft);
  return { ...sent, isHead: draft.method === 'HEAD' };
}

function send(random: Random, draft: Draft): Sent {
  const roll = random();
  if (roll < 0.05) return chunked(random, draft, false);
  if (roll < 0.1) return chunked(random, draft, true);
  if (roll < 0.16) return wrongFraming(random, draft);
  if (roll < 0.22) return damagedHead(random, draft);
  return whole(random, draft);
}

function compress(random: Random, draft: Draft): void {
  const roll = random();
  draft.headers.push('Content-Encoding: gzip');
  if (roll < 0.02) draft.body = bomb;
  else if (roll < 0.5) draft.body = gzipSync(draft.body, { level: 1 });
  else if (roll < 0.7) draft.body = flip(random, gzipSync(draft.body, { level: 1 }));
  else if (roll < 0.8) draft.body = truncate(random, gzipSync(draft.body, { level: 1 }));
  else if (roll < 0.9) draft.body = Buffer.concat([gzipSync(draft.body), draft.body]);
}

/** Changes headers, method and path. The head stays well-formed. */
function changeHeaders(random: Random, draft: Draft): void {
  const bytes = (count: number, from: string) =>
    Array.from({ length: count }, () => from[integerIn(random, 0, from.length - 1)]).join('');
  const visible = 'abcXYZ019-_.~!#$%&*+/=?@^`|{}()<>[]:;,"\\ ';
  const changes = [
    () => draft.headers.push(`Idempotency-Key: k${bytes(integerIn(random, 0, 260), visible)}`),
    () => draft.headers.push(`Idempotency-Key: ${integerIn(random, 1, 3)}`),
    () => draft.headers.splice(1, 1),
    () => draft.headers.splice(1, 1, `x-node-auth-key: ${bytes(43, 'abcXYZ019-_')}`),
    () =>
      draft.headers.splice(1, 1, `x-node-auth-key: ${bytes(integerIn(random, 0, 90), visible)}`),
    () => draft.headers.push(`x-node-auth-key: ${bytes(43, 'abc')}`),
    () => draft.headers.splice(2, 1, `Content-Type: ${bytes(12, visible)}`),
    () => draft.headers.splice(2, 1),
    () => draft.headers.push(`Content-Encoding: ${bytes(4, visible)}`),
    () => draft.headers.push(`If-None-Match: ${bytes(integerIn(random, 0, 30), '"W/1*, ')}`),
    () => draft.headers.push('If-None-Match: "1"'),
    () => draft.headers.push(`Accept-Encoding: ${bytes(integerIn(random, 0, 30), 'gzip*;q=0., ')}`),
    () => draft.headers.push('Accept-Encoding: gzip'),
    () => draft.headers.push(`X-Padding: ${bytes(integerIn(random, 0, 2_000), visible)}`),
    () => draft.headers.push(...Array.from({ length: 30 }, (_, n) => `X-Many-${n}: ${n}`)),
    () => draft.headers.push('Connection: close'),
  ];
  changes[integerIn(random, 0, changes.length - 1)]?.();
  if (random() < 0.1) {
    const methods = ['PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD', 'GET', 'POST'];
    draft.method = methods[integerIn(random, 0, methods.length - 1)] ?? 'PUT';
  }
  if (random() < 0.05) draft.path += bytes(integerIn(random, 1, 20), 'abc/%2e.-_~');
  if (random() < 0.05) draft.path += `?${bytes(integerIn(random, 0, 20), 'abc&=%')}`;
}

function head(draft: Draft, more: readonly string[]): string {
  const lines = [`${draft.method} ${draft.path} HTTP/1.1`, ...draft.headers, ...more];
  return `${lines.join('\r\n')}\r\n\r\n`;
}

function whole(random: Random, draft: Draft): Sent {
  const { method, body } = draft;
  const text = head(draft, [`Content-Length: ${body.length}`]);
  const asks = { method, path: draft.path.split('?')[0] ?? '' };
  const bytes = Buffer.concat([Buffer.from(text, 'latin1'), body]);
  // Over about 4 KB of head, uWebSockets closes the connection without an answer.
  if (text.length > 3_500) return { parts: [bytes], asks: undefined };
  if (random() > 0.1) return { parts: [bytes], asks };
  const cut = integerIn(random, 0, bytes.length);
  return { parts: [bytes.subarray(0, cut), bytes.subarray(cut)], asks };
}

function chunked(random: Random, draft: Draft, damages: boolean): Sent {
  const chunks: Buffer[] = [];
  for (let at = 0; at < draft.body.length; ) {
    const size = integerIn(random, 1, Math.max(1, Math.ceil(draft.body.length / 3)));
    const chunk = draft.body.subarray(at, at + size);
    chunks.push(Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from('\r\n'));
    at += size;
  }
  chunks.push(Buffer.from('0\r\n\r\n'));
  const encoded = Buffer.concat(chunks);
  const text = head(draft, ['Transfer-Encoding: chunked']);
  const asks = { method: draft.method, path: draft.path.split('?')[0] ?? '' };
  const isWhole = !damages && text.length <= 3_500;
  const payload = damages ? mutate(random, encoded, encoded) : encoded;
  return {
    parts: [Buffer.concat([Buffer.from(text, 'latin1'), payload])],
    asks: isWhole ? asks : undefined,
  };
}

/** The head gives a wrong length of the body, or several. */
function wrongFraming(random: Random, draft: Draft): Sent {
  const { length } = draft.body;
  const framings = [
    [`Content-Length: ${integerIn(random, 0, length)}`],
    [`Content-Length: ${length + integerIn(random, 1, 1_000)}`],
    ['Content-Length: 4294967296'],
    ['Content-Length: 999999999'],
    ['Content-Length: 18446744073709551617'],
    ['Content-Length: -1'],
    ['Content-Length: 0x10'],
    ['Content-Length:'],
    [`Content-Length: ${length}, ${length}`],
    [`Content-Length: ${length}`, `Content-Length: ${length}`],
    [`Content-Length: ${length}`, `Content-Length: ${integerIn(random, 0, length)}`],
    [`Content-Length: ${length}`, 'Transfer-Encoding: chunked'],
    ['Transfer-Encoding: chunked', 'Transfer-Encoding: identity'],
    ['Transfer-Encoding: gzip, chunked'],
    ['Transfer-Encoding: identity', `Content-Length: ${length}`],
    ['Transfer-Encoding:'],
    [],
  ];
  const framing = framings[integerIn(random, 0, framings.length - 1)] ?? [];
  const bytes = [Buffer.from(head(draft, framing), 'latin1'), draft.body];
  if (random() < 0.5) bytes.push(Buffer.from('GET /healthz HTTP/1.1\r\nHost: core\r\n\r\n'));
  return { parts: [Buffer.concat(bytes)], asks: undefined };
}

/** Damages bytes of the head itself. */
function damagedHead(random: Random, draft: Draft): Sent {
  const text = head(draft, [`Content-Length: ${draft.body.length}`]);
  const damages = [
    () => flip(random, Buffer.from(text, 'latin1')),
    () => truncate(random, Buffer.from(text, 'latin1')),
    () => mutate(random, Buffer.from(text, 'latin1'), draft.body),
    () => Buffer.from(text.replaceAll('\r\n', random() < 0.5 ? '\n' : '\r'), 'latin1'),
    () => Buffer.from(text.replace('\r\n', random() < 0.5 ? '\n' : '\r'), 'latin1'),
    () => Buffer.from(text.replace('HTTP/1.1', 'HTTP/1.0'), 'latin1'),
    () => Buffer.from(text.replace('Host: core', ' folded: yes'), 'latin1'),
    () =>
      Buffer.from(text.replace('Host: core', `X: ${'x'.repeat(integerIn(random, 3_000, 70_000))}`)),
    () => Buffer.from(text.replace('Host: core', 'x: 1\r\n'.repeat(200)), 'latin1'),
    () => Buffer.from(Array.from({ length: 300 }, () => integerIn(random, 0, 255))),
  ];
  const damaged = damages[integerIn(random, 0, damages.length - 1)]?.() ?? Buffer.alloc(0);
  return { parts: [Buffer.concat([damaged, draft.body])], asks: undefined };
}
