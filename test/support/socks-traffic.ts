import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { buffer } from 'node:stream/consumers';
import type { Test } from 'tap';

const chunk = Buffer.alloc(65_536, 7);

/**
 * An HTTP server that accepts any body and answers with as many bytes as `?down=` says. With `?hold` it
 * answers one byte and then nothing more. Returns its port.
 */
export async function startSite(t: Test): Promise<number> {
  const site = http.createServer(async (request, response) => {
    const url = new URL(request.url ?? '', 'http://site');
    await buffer(request);
    if (url.searchParams.has('hold')) {
      response.write('.');
      return;
    }
    const down = Number(url.searchParams.get('down'));
    response.writeHead(200, { 'content-length': down });
    for (let sent = 0; sent < down && !response.destroyed; sent += chunk.length) {
      const isTaken = response.write(chunk.subarray(0, Math.min(chunk.length, down - sent)));
      if (!isTaken) await roomIn(response);
    }
    response.end();
  });
  site.listen(0, '127.0.0.1');
  await once(site, 'listening');
  t.teardown(() => {
    site.closeAllConnections();
    site.close();
  });
  return (site.address() as net.AddressInfo).port;
}

/** Resolves at `drain` or `close`, whichever comes first, and removes both listeners. */
function roomIn(response: http.ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
  });
}

/**
 * Sends `up` bytes to the site and receives `down` bytes from it, through a SOCKS proxy, on a new
 * connection. Fails if fewer come, and after a minute.
 * @param onData is called before the answer's body is read, and is awaited.
 */
export async function move(
  way: { socksPort: number; sitePort: number },
  bytes: { up: number; down: number },
  onData?: () => Promise<void>,
): Promise<void> {
  const socket = await connectThrough(way.socksPort, way.sitePort);
  const request = http.request({
    createConnection: () => socket,
    method: 'POST',
    path: `/?down=${bytes.down}`,
    host: '127.0.0.1',
    port: way.sitePort,
    headers: { connection: 'close', 'content-length': bytes.up },
    timeout: 60_000,
  });
  request.once('timeout', () => request.destroy(new Error('no answer in a minute')));
  request.end(Buffer.alloc(bytes.up, 9));
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  await onData?.();
  let received = 0;
  for await (const part of response) received += (part as Buffer).length;
  if (received !== bytes.down) throw new Error(`${received} of ${bytes.down} bytes came`);
  if (!socket.closed) await once(socket, 'close');
}

/** Opens a session that stays open until the other side ends it. */
export async function hold(way: { socksPort: number; sitePort: number }): Promise<{
  closed: Promise<unknown>;
}> {
  const socket = await connectThrough(way.socksPort, way.sitePort);
  // v2ray connects to the host that it reads from the request, so the request names the site's address.
  const host = `127.0.0.1:${way.sitePort}`;
  socket.write(`POST /?hold HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 0\r\n\r\n`);
  await once(socket, 'data');
  socket.resume();
  return { closed: once(socket, 'close') };
}

/** A connection to 127.0.0.1 through a SOCKS proxy. */
export async function connectThrough(socksPort: number, port: number): Promise<net.Socket> {
  return (await askSocks(socksPort, 'CONNECT', port)).socket;
}

const commands = { CONNECT: 1, 'UDP ASSOCIATE': 3 };

/** SOCKS 5 without authentication, for a port of 127.0.0.1 (RFC 1928). */
export async function askSocks(
  socksPort: number,
  command: keyof typeof commands,
  port: number,
): Promise<{ socket: net.Socket; answer: Buffer }> {
  const socket = net.connect({ host: '127.0.0.1', port: socksPort });
  const failed = once(socket, 'close').then(() => {
    throw new Error('the SOCKS proxy closed the connection');
  });
  failed.catch(() => undefined);
  socket.on('error', () => undefined);
  const next = async (): Promise<Buffer> =>
    (await Promise.race([once(socket, 'data'), failed]))[0] as Buffer;
  await Promise.race([once(socket, 'connect'), failed]);
  socket.write(Buffer.from([5, 1, 0]));
  if ((await next())[1] !== 0) throw new Error('SOCKS: no method');
  socket.write(Buffer.from([5, commands[command], 0, 1, 127, 0, 0, 1, port >> 8, port & 255]));
  const answer = await next();
  if (answer[1] !== 0) throw new Error(`SOCKS: no ${command}`);
  return { socket, answer };
}
