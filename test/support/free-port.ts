import net from 'node:net';

/** Ports that nobody listened on a moment ago, all different. The system picks them. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(Array.from({ length: count }, () => listen(0)));
  const ports = servers.map((server) => (server.address() as net.AddressInfo).port);
  await Promise.all(servers.map(close));
  return ports;
}

/**
 * Systems hand out ports above this range to outgoing connections. A server that is killed and
 * started again must find its port free. And a client that keeps connecting to a closed port of the
 * system's own range can end up connected to itself.
 */
const fixedLowest = 20_000;
const fixedHighest = 32_000;

/** Free ports for servers that are started again on the same port, all different. */
export async function fixedPorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  const tries = fixedHighest - fixedLowest;
  // Processes that run side by side begin at different ports.
  let candidate = fixedLowest + ((process.pid * 16) % tries);
  for (let tried = 0; ports.length < count && tried < tries; tried += 1) {
    if (await isFree(candidate)) ports.push(candidate);
    candidate = candidate === fixedHighest ? fixedLowest : candidate + 1;
  }
  if (ports.length === count) return ports;
  throw new Error(`fewer than ${count} free ports from ${fixedLowest} to ${fixedHighest}`);
}

async function isFree(port: number): Promise<boolean> {
  try {
    await close(await listen(port));
    return true;
  } catch {
    // The port is in use.
    return false;
  }
}

function listen(port: number): Promise<net.Server> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen({ host: '127.0.0.1', port, exclusive: true }, () => resolve(server));
  });
}

function close(server: net.Server): Promise<unknown> {
  return new Promise((resolve) => server.close(resolve));
}
