import { createCipheriv, createHash } from 'node:crypto';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { finished } from 'node:stream';
import tls from 'node:tls';
import type { Lifecycle } from '../../../src/lifecycle.ts';
import type { Certificate } from './certificate.ts';

/** What one connection asks of the site: `up` bytes to it, `down` bytes from it. */
export interface Exchange {
  /** Which bytes: both sides make them from this number. */
  seed: number;
  up: number;
  down: number;
  /** Whether both sides leave the connection open when all bytes have come. */
  stays: boolean;
}

/** The length of a request's head: four numbers of 4 bytes. */
const headBytes = 16;
/**
 * What the site answers to a head. The sender waits for it, as it does for the other side of a TLS handshake:
 * Xray's Trojan client breaks a connection whose first bytes are more than its buffer holds.
 */
export const goMark = '.';
/** What the site answers before its bytes: what it received was what the seed says. */
export const receivedMark = 'OK';

/** The site behind one cell of the matrix. It counts the bytes that come out of the proxy. */
export interface Door {
  port: number;
  udpPort: number;
  /** Bytes that TCP and UDP moved so far, from the user and to the user. */
  bytes(): { up: number; down: number };
  /** Connections and datagrams that came so far. */
  arrivals(): number;
  /** Connections that the proxy has neither closed nor ended. */
  open(): number;
}

/** The bytes that a seed stands for. Nothing on the way can repeat or swap them unnoticed. */
export function bytesOf(seed: number, length: number): Buffer {
  const key = createHash('sha256').update(`conformance ${seed}`).digest().subarray(0, 16);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}

export function headOf({ seed, up, down, stays }: Exchange): Buffer {
  const head = Buffer.alloc(headBytes);
  head.writeUInt32BE(seed, 0);
  head.writeUInt32BE(up, 4);
  head.writeUInt32BE(down, 8);
  head.writeUInt32BE(stays ? 1 : 0, 12);
  return head;
}

/**
 * Starts the site, once plain and once over TLS 1.3. `open` gives each cell a door of its own, so that the
 * bytes of one cell are known whatever the others do.
 */
export async function startSite(
  certificate: Certificate,
  lifecycle: Lifecycle,
): Promise<{ open(over: 'plain' | 'tls'): Promise<Door>; tlsPort: number }> {
  const plain = net.createServer({ allowHalfOpen: true }, serve);
  const secure = tls.createServer(
    {
      cert: readFileSync(certificate.certificateFile),
      key: readFileSync(certificate.keyFile),
      minVersion: 'TLSv1.3',
      ALPNProtocols: ['h2', 'http/1.1'],
    },
    serve,
  );
  secure.on('tlsClientError', () => undefined);
  const [plainPort, tlsPort] = [await listen(plain, lifecycle), await listen(secure, lifecycle)];
  return {
    tlsPort,
    open: (over) => openDoor(over === 'tls' ? tlsPort : plainPort, lifecycle),
  };
}

/** Answers one request on one connection. A connection that sends other bytes than it said is closed. */
function serve(socket: net.Socket): void {
  let received = Buffer.alloc(0);
  let isTold = false;
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    if (received.length < headBytes) return;
    if (!isTold) socket.write(goMark);
    isTold = true;
    const [seed = 0, up = 0, down = 0, stays] = [0, 4, 8, 12].map((at) =>
      received.readUInt32BE(at),
    );
    if (received.length < headBytes + up) return;
    const isRight = received.subarray(headBytes).equals(bytesOf(seed, up));
    if (!isRight) return void socket.destroy();
    socket.write(Buffer.concat([Buffer.from(receivedMark), bytesOf(seed + 1, down)]));
    if (stays !== 1) socket.end();
  });
}

async function openDoor(sitePort: number, lifecycle: Lifecycle): Promise<Door> {
  const moved = { up: 0, down: 0 };
  let arrivals = 0;
  const openNow = new Set<net.Socket>();
  const front = net.createServer({ allowHalfOpen: true }, (outside) => {
    arrivals += 1;
    openNow.add(outside);
    for (const end of ['end', 'close']) outside.once(end, () => openNow.delete(outside));
    const inside = net.connect({ host: '127.0.0.1', port: sitePort, allowHalfOpen: true });
    outside.on('data', (chunk: Buffer) => {
      moved.up += chunk.length;
    });
    inside.on('data', (chunk: Buffer) => {
      moved.down += chunk.length;
    });
    outside.pipe(inside).pipe(outside);
    for (const [one, other] of [
      [outside, inside],
      [inside, outside],
    ] as const) {
      one.on('error', () => other.destroy());
      finished(one, () => one.destroyed && other.destroy());
    }
  });
  const port = await listen(front, lifecycle);
  const udp = dgram.createSocket('udp4');
  udp.on('error', () => undefined);
  udp.on('message', (message, from) => {
    arrivals += 1;
    moved.up += message.length;
    moved.down += message.length;
    udp.send(message, from.port, from.address);
  });
  udp.bind(0, '127.0.0.1');
  await once(udp, 'listening');
  lifecycle.use('udp door', () => void udp.close());
  return {
    port,
    udpPort: udp.address().port,
    bytes: () => ({ ...moved }),
    arrivals: () => arrivals,
    open: () => openNow.size,
  };
}

async function listen(server: net.Server, lifecycle: Lifecycle): Promise<number> {
  const open = new Set<net.Socket>();
  server.on('connection', (socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  lifecycle.use('site', () => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return (server.address() as net.AddressInfo).port;
}
