import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { bytesOf, type Exchange, goMark, headOf, receivedMark } from './site.ts';

/** The SOCKS port of a client app, and where the traffic goes. */
export interface Way {
  socksPort: number;
  targetPort: number;
  /** Over TLS 1.3 inside of the proxy's connection, as a browser does it. */
  isTls: boolean;
}

const waitMsMax = 15_000;
/** Datagrams that are on the way at once. Few, since UDP loses what does not fit into a buffer. */
const windowDatagrams = 4;
/** UDP may lose a datagram, so one that has not come back is sent again. */
const resendMs = 1_000;
/** With an IPv4 address in it (RFC 1928). */
const socksAnswerBytes = 10;
export const datagramBytes = 1_000;

/**
 * Sends `up` bytes and receives `down` bytes, and checks each of them. The connection stays open if that is
 * asked for, until the proxy, its client or the site ends it.
 * @throws Error if the connection fails, other bytes come, or nothing comes for 15 s.
 */
export async function exchange(way: Way, asked: Exchange): Promise<void> {
  const socket = await connect(way);
  let isDone = false;
  try {
    socket.write(headOf(asked));
    const go = await read(socket, goMark.length);
    if (go.toString() !== goMark) throw new Error('the site answered other bytes');
    socket.write(bytesOf(asked.seed, asked.up));
    const expected = Buffer.concat([
      Buffer.from(receivedMark),
      bytesOf(asked.seed + 1, asked.down),
    ]);
    const received = await read(socket, expected.length);
    if (!received.equals(expected)) throw new Error('other bytes came than the site sent');
    isDone = true;
  } finally {
    if (asked.stays && isDone) socket.on('error', () => undefined).resume();
    else socket.destroy();
  }
}

/** Sends datagrams through SOCKS, and waits until each has come back. */
export async function exchangeDatagrams(
  way: Way,
  { seed, count }: { seed: number; count: number },
): Promise<void> {
  const control = await openSocks(way.socksPort);
  control.write(Buffer.from([5, 3, 0, 1, 0, 0, 0, 0, 0, 0]));
  const answer = await read(control, socksAnswerBytes);
  if (answer[1] !== 0) throw new Error(`SOCKS refuses UDP: ${answer[1]}`);
  const udp = await unusedSource();
  try {
    const head = Buffer.from([0, 0, 0, 1, 127, 0, 0, 1, way.targetPort >> 8, way.targetPort & 255]);
    const payloads = Array.from({ length: count }, (_, index) =>
      bytesOf(seed * 4_096 + index, datagramBytes),
    );
    await sendUntilBack(udp, {
      payloads: payloads.map((payload) => Buffer.concat([head, payload])),
      relayPort: answer.readUInt16BE(answer.length - 2),
    });
  } finally {
    udp.close();
    control.destroy();
  }
}

/** Sources that an exchange of this process has had. */
const usedSources = new Set<number>();
const sourceTriesMax = 1_000;

/**
 * A socket on a port that no exchange had before. Xray's client knows a UDP session by its source (XUDP). If two
 * users of one client had the same source soon after each other, the second one's bytes would count for the first.
 */
async function unusedSource(): Promise<dgram.Socket> {
  for (let tries = 0; tries < sourceTriesMax; tries += 1) {
    const udp = dgram.createSocket('udp4');
    udp.bind(0, '127.0.0.1');
    await once(udp, 'listening');
    const { port } = udp.address();
    if (!usedSources.has(port)) {
      usedSources.add(port);
      return udp;
    }
    udp.close();
  }
  throw new Error('the system gave out no port that is new to this run');
}

/** Each payload has its SOCKS head, and comes back with the same one. */
function sendUntilBack(
  udp: dgram.Socket,
  { payloads, relayPort }: { payloads: readonly Buffer[]; relayPort: number },
): Promise<void> {
  const texts = payloads.map((payload) => payload.toString('latin1'));
  const sent = new Set<string>();
  const known = new Set(texts);
  const waiting = new Set(texts);
  const send = (count: number): void => {
    for (const text of [...waiting].filter((one) => !sent.has(one)).slice(0, count)) {
      sent.add(text);
      udp.send(Buffer.from(text, 'latin1'), relayPort, '127.0.0.1');
    }
  };
  return new Promise((resolve, reject) => {
    const end = (fault?: Error): void => {
      clearInterval(again);
      clearTimeout(late);
      if (fault === undefined) resolve();
      else reject(fault);
    };
    const again = setInterval(() => {
      sent.clear();
      send(windowDatagrams);
    }, resendMs);
    const late = setTimeout(() => {
      end(new Error(`${waiting.size} of ${payloads.length} datagrams did not come back`));
    }, waitMsMax);
    udp.on('error', end).on('message', (message) => {
      const text = message.toString('latin1');
      if (!known.has(text)) return end(new Error('a datagram came back with other bytes'));
      again.refresh();
      if (waiting.delete(text)) send(1);
      if (waiting.size === 0) end();
    });
    send(windowDatagrams);
  });
}

async function connect({ socksPort, targetPort, isTls }: Way): Promise<net.Socket> {
  const socket = await openSocks(socksPort);
  socket.write(Buffer.from([5, 1, 0, 1, 127, 0, 0, 1, targetPort >> 8, targetPort & 255]));
  const answer = await read(socket, socksAnswerBytes);
  if (answer[1] !== 0) throw new Error(`SOCKS: no connection (${answer[1]})`);
  if (!isTls) return socket;
  const secure = tls.connect({ socket, rejectUnauthorized: false, minVersion: 'TLSv1.3' });
  socket.once('close', () => secure.destroy());
  const failed = once(secure, 'close').then(() => {
    throw new Error('the connection was closed in the TLS handshake');
  });
  failed.catch(() => undefined);
  await Promise.race([once(secure, 'secureConnect'), failed]);
  return secure;
}

/** SOCKS 5 without authentication (RFC 1928). */
async function openSocks(port: number): Promise<net.Socket> {
  const socket = net.connect({ host: '127.0.0.1', port });
  socket.on('error', () => undefined);
  await Promise.race([once(socket, 'connect'), once(socket, 'close')]);
  socket.write(Buffer.from([5, 1, 0]));
  if ((await read(socket, 2))[1] !== 0) throw new Error('SOCKS: no method');
  return socket;
}

/** Reads so many bytes, and no more. */
function read(socket: net.Socket, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let have = 0;
    const late = setTimeout(() => end(new Error('nothing came for 15 s')), waitMsMax);
    const onData = (chunk: Buffer): void => {
      late.refresh();
      chunks.push(chunk);
      have += chunk.length;
      if (have >= length) end();
    };
    const onClose = (): void => end(new Error(`closed after ${have} of ${length} bytes`));
    const end = (fault?: Error): void => {
      clearTimeout(late);
      socket.off('data', onData).off('close', onClose).pause();
      if (fault === undefined) resolve(Buffer.concat(chunks));
      else reject(fault);
    };
    socket.on('data', onData).on('close', onClose).resume();
    if (socket.destroyed) onClose();
  });
}
