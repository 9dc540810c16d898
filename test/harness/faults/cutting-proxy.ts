import { once } from 'node:events';
import net from 'node:net';

/** A proxy in front of one server. It can lose the server's replies for a while. */
export interface CuttingProxy {
  port: number;
  /**
   * From now on the proxy closes a connection instead of passing on what the server sends. So the request
   * goes through, and its reply is lost. Lasts until `pass`.
   */
  cut(): void;
  pass(): void;
  /** Replies lost so far. */
  lost(): number;
  close(): Promise<void>;
}

/** Listens on `port` and passes everything on to `targetPort`. Both are on loopback. */
export async function startCuttingProxy(port: number, targetPort: number): Promise<CuttingProxy> {
  let cutting = false;
  let lost = 0;
  const sockets = new Set<net.Socket>();
  const server = net.createServer((client) => {
    const upstream = net.connect({ host: '127.0.0.1', port: targetPort });
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
    }
    const end = (): void => {
      client.destroy();
      upstream.destroy();
    };
    client.on('error', end).on('close', end);
    upstream.on('error', end).on('close', end);
    client.pipe(upstream);
    upstream.on('data', (chunk) => {
      if (cutting) {
        lost += 1;
        end();
      } else if (!client.write(chunk)) {
        upstream.pause();
        client.once('drain', () => upstream.resume());
      }
    });
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    port,
    cut() {
      cutting = true;
    },
    pass() {
      cutting = false;
    },
    lost: () => lost,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
