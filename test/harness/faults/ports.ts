import net from 'node:net';

/**
 * Below the ports that systems hand out to outgoing connections. A server that is killed and
 * started again must find its port free, and a client that keeps knocking on a port from that range
 * can even end up connected to itself.
 */
const lowest = 20_000;
const highest = 32_000;

/** Ports that nobody listened on a moment ago, all different. */
export async function fixedPorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  // Apart for suites that run side by side.
  let candidate = lowest + ((process.pid * 16) % (highest - lowest));
  for (let tries = 0; ports.length < count && tries < highest - lowest; tries += 1) {
    if (await isFree(candidate)) ports.push(candidate);
    candidate = candidate === highest ? lowest : candidate + 1;
  }
  if (ports.length < count) throw new Error(`No ${count} free ports from ${lowest} to ${highest}`);
  return ports;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () =>
      server.close(() => resolve(true)),
    );
  });
}
