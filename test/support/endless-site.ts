import { once } from 'node:events';
import net from 'node:net';
import type { Test } from 'tap';
import { connectThrough } from './socks-traffic.ts';

const chunk = Buffer.alloc(32_768, 7);
const pauseMs = 10;

/** A download that goes on until somebody ends it, and the bytes that came. */
export interface Download {
  received(): number;
  isOpen(): boolean;
  /** Resolves once more bytes have come than now. */
  more(): Promise<void>;
  closed: Promise<unknown>;
  stop(): void;
}

/**
 * A TCP server that sends without an end, some 3 MB a second, to whoever connects and names itself in a
 * line. It counts what it has sent to each name.
 */
export async function startEndlessSite(t: Test) {
  const sent = new Map<string, number>();
  const open = new Set<net.Socket>();
  const site = net.createServer((socket) => {
    open.add(socket);
    socket.on('error', () => undefined);
    socket.once('data', (line) => {
      const name = String(line).trim();
      const timer = setInterval(() => {
        if (socket.writableNeedDrain) return;
        socket.write(chunk);
        sent.set(name, (sent.get(name) ?? 0) + chunk.length);
      }, pauseMs);
      socket.once('close', () => {
        clearInterval(timer);
        open.delete(socket);
      });
    });
  });
  site.listen(0, '127.0.0.1');
  await once(site, 'listening');
  t.teardown(() => {
    for (const socket of open) socket.destroy();
    site.close();
  });
  const { port } = site.address() as net.AddressInfo;
  return {
    /** Bytes that were written to the connections of a name. Not all of them need have left. */
    sentTo: (name: string): number => sent.get(name) ?? 0,
    /** Opens a download through a SOCKS port. Resolves with its first bytes. */
    async download(socksPort: number, name: string): Promise<Download> {
      const socket = await connectThrough(socksPort, port);
      const closed = once(socket, 'close');
      let received = 0;
      socket.on('data', (bytes) => {
        received += bytes.length;
      });
      const more = async (): Promise<void> => {
        await Promise.race([once(socket, 'data'), closed]);
      };
      socket.write(`${name}\n`);
      await more();
      return {
        received: () => received,
        isOpen: () => !socket.destroyed,
        more,
        closed,
        stop: () => void socket.destroy(),
      };
    },
  };
}
