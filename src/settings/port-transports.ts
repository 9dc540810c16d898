import type pg from 'pg';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { canonicalIp, isUnixSocket, socketName } from '../protocols/addresses.ts';
import { hasPort, type PortTransport, type RawListener } from '../protocols/raw-listeners.ts';

/**
 * The transports that a protocol listens with on its port. The columns `listens_tcp` and
 * `listens_udp` of `node_protocols` contain the same; Postgres derives them.
 * @param settings With or without their defaults.
 */
export function transportsOf(
  protocol: VpnProtocol,
  settings: Record<string, unknown>,
): PortTransport[] {
  if (protocol === 'HYSTERIA2') return ['udp'];
  if (protocol !== 'SHADOWSOCKS') return ['tcp'];
  const network = settings['network'];
  return network === 'tcp' || network === 'udp' ? [network] : ['tcp', 'udp'];
}

/** What a protocol takes on its node. */
export interface Listener {
  protocol: VpnProtocol;
  port: number;
  settings: Record<string, unknown>;
}

const wildcards = new Set(['0.0.0.0', '::']);

/**
 * What two protocols of a node cannot both listen on, like `TCP port 443`; undefined if they can be
 * together. Different addresses may share a port. An address and all addresses may not, though Xray
 * would start: Linux then gives one of the two what the other seems to have. 0.0.0.0 is all addresses
 * of both families for Xray, as `::` is. Xray even starts twice on the same address and port, and Linux
 * deals the connections out between the two.
 */
export function collisionOf(one: Listener, other: Listener): string | undefined {
  const [listen, otherListen] = [listenOf(one), listenOf(other)];
  if (isUnixSocket(listen) || isUnixSocket(otherListen)) {
    return listen === otherListen ? `The unix socket ${listen}` : undefined;
  }
  if (one.port !== other.port) return undefined;
  const others = transportsOf(other.protocol, other.settings);
  const shared = transportsOf(one.protocol, one.settings).find((name) => others.includes(name));
  if (shared === undefined || areApart(listen, otherListen)) return undefined;
  return `${shared.toUpperCase()} port ${one.port}`;
}

function areApart(listen: string, other: string): boolean {
  return listen !== other && !wildcards.has(listen) && !wildcards.has(other);
}

/** The same for an inbound of `raw` and a protocol. */
export function rawCollisionOf(raw: RawListener, one: Listener): string | undefined {
  const listen = listenOf(one);
  if (isUnixSocket(listen)) {
    return raw.listen === listen ? `the unix socket ${listen}` : undefined;
  }
  const transports = transportsOf(one.protocol, one.settings);
  const shared = raw.transports.find((name) => transports.includes(name));
  const isTaken = shared !== undefined && hasPort(raw, one.port) && !areApart(raw.listen, listen);
  return isTaken ? `${shared.toUpperCase()} port ${one.port}` : undefined;
}

/** The same for two inbounds of `raw`. */
export function rawCollision(raw: RawListener, other: RawListener): string | undefined {
  if (isUnixSocket(raw.listen)) {
    return raw.listen === other.listen ? `the unix socket ${raw.listen}` : undefined;
  }
  const shared = raw.transports.find((name) => other.transports.includes(name));
  const port = raw.ports
    .flatMap(([from]) => (hasPort(other, from) ? [from] : []))
    .concat(other.ports.flatMap(([from]) => (hasPort(raw, from) ? [from] : [])))[0];
  const isTaken = shared !== undefined && port !== undefined && !areApart(raw.listen, other.listen);
  return isTaken ? `${shared.toUpperCase()} port ${port}` : undefined;
}

/** The address or unix socket that a protocol listens on, in one spelling. */
export function listenOf({ settings }: Pick<Listener, 'settings'>): string {
  const { listen } = settings;
  if (typeof listen !== 'string') return '0.0.0.0';
  return isUnixSocket(listen) ? socketName(listen) : canonicalIp(listen);
}

/**
 * Checks that no other protocol of the node listens where this one does. The caller's transaction must
 * have locked the node: Postgres does not see a collision.
 * @param wanted.nodeProtocolId The protocol itself, if it exists already.
 * @throws CoreError INVALID_ARGUMENT naming the protocol that has the port or the socket.
 */
export async function requirePortFreeOnNode(
  client: pg.PoolClient,
  wanted: Listener & { nodeId: number; nodeProtocolId?: number },
): Promise<void> {
  const { nodeId, nodeProtocolId, port } = wanted;
  const { rows } = await client.query<Listener & { id: number }>(
    `SELECT id, protocol, port, settings FROM node_protocols
     WHERE node_id = $1 AND (port = $2 OR settings ->> 'listen' ~ '^[/@]')
       AND id IS DISTINCT FROM $3::bigint ORDER BY id`,
    [nodeId, port, nodeProtocolId ?? null],
  );
  for (const other of rows) {
    const place = collisionOf(wanted, other);
    if (place === undefined) continue;
    const { listen } = other.settings;
    const address = typeof listen === 'string' && !isUnixSocket(listen) ? ` on ${listen}` : '';
    throw new CoreError(
      'INVALID_ARGUMENT',
      `${place} of node ${nodeId} is taken by protocol ${other.id} (${other.protocol}${address})`,
    );
  }
}
