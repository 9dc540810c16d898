import { hasPort, type RawListener } from './raw-listeners.ts';

/** The api's port in Xray's documentation. */
const apiPortMin = 10_085;
const portMin = 1_024;
const portMax = 65_535;

/**
 * The port of Xray's api: the first one from 10085 on that nothing else of the node has, on any address.
 * Undefined if inbounds of `raw` have all of them.
 */
export function apiPort(
  protocols: readonly { port: number }[],
  raw: readonly RawListener[],
): number | undefined {
  const taken = new Set(protocols.map(({ port }) => port));
  for (let count = 0, port = apiPortMin; count <= portMax - portMin; count += 1) {
    if (!taken.has(port) && !raw.some((one) => hasPort(one, port))) return port;
    port = port === portMax ? portMin : port + 1;
  }
  return undefined;
}
