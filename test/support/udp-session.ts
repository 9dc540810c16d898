import dgram from 'node:dgram';
import { once } from 'node:events';
import type { Test } from 'tap';
import { askSocks } from './socks-traffic.ts';

const pauseMs = 50;

/** Datagrams that go to a site and come back, over and over. */
export interface UdpSession {
  /** Datagrams that have come back. */
  received(): number;
  stop(): void;
}

/** Sends back what it receives. Returns its port. */
export async function startUdpSite(t: Test): Promise<number> {
  const site = dgram.createSocket('udp4');
  site.on('message', (message, from) => site.send(message, from.port, from.address));
  site.bind(0, '127.0.0.1');
  await once(site, 'listening');
  t.teardown(() => site.close());
  return site.address().port;
}

/** Sends a datagram through SOCKS every 50 ms, until it is stopped. Resolves once one has come back. */
export async function startUdpSession(
  t: Test,
  way: { socksPort: number; sitePort: number },
): Promise<UdpSession> {
  const { socket: control, answer } = await askSocks(way.socksPort, 'UDP ASSOCIATE', 0);
  const relayPort = answer.readUInt16BE(answer.length - 2);
  const udp = dgram.createSocket('udp4');
  const head = Buffer.from([0, 0, 0, 1, 127, 0, 0, 1, way.sitePort >> 8, way.sitePort & 255]);
  const datagram = Buffer.concat([head, Buffer.alloc(200, 5)]);
  let received = 0;
  udp.on('message', () => {
    received += 1;
  });
  const timer = setInterval(() => udp.send(datagram, relayPort, '127.0.0.1'), pauseMs);
  let isStopped = false;
  const stop = (): void => {
    if (isStopped) return;
    isStopped = true;
    clearInterval(timer);
    udp.close();
    control.destroy();
  };
  t.teardown(stop);
  await once(udp, 'message');
  return { received: () => received, stop };
}
