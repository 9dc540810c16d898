import type { ClientSecurity, ClientTransport, Connection } from './connection.ts';

/** A connection that a format has no words for. */
export interface LeftOut {
  name: string;
  /** Why, as a part of a sentence: `mihomo has no …`. */
  why: string;
}

/** The connections of a subscription in one format for client apps. */
export interface Profile {
  text: string;
  leftOut: readonly LeftOut[];
}

/** One connection in a format, or why the format cannot say it. */
export type Written = { outcome: 'written'; proxy: object } | { outcome: 'left out'; why: string };

export const leftOut = (why: string): Written => ({ outcome: 'left out', why });

/**
 * Writes each connection under a name of its own, because client apps refuse a profile in which a name
 * comes twice. A name that is taken gets a number: `fra-1 VLESS 2`.
 * @param reserved names that the format itself uses.
 */
export function writeAll(
  connections: readonly Connection[],
  reserved: readonly string[],
  write: (connection: Connection) => Written,
): { proxies: object[]; names: string[]; leftOut: LeftOut[] } {
  const taken = new Set(reserved);
  const all = { proxies: [] as object[], names: [] as string[], leftOut: [] as LeftOut[] };
  for (const connection of connections) {
    let name = connection.name;
    for (let number = 2; taken.has(name); number += 1) name = `${connection.name} ${number}`;
    const written = write({ ...connection, name });
    if (written.outcome === 'left out') {
      all.leftOut.push({ name: connection.name, why: written.why });
      continue;
    }
    taken.add(name);
    all.names.push(name);
    all.proxies.push(written.proxy);
  }
  return all;
}

/**
 * What the client offers in the TLS handshake. A server that offers more than the transport can use would choose
 * it: WebSocket needs HTTP/1.1, and gRPC needs HTTP/2. Xray's own client knows that by itself.
 */
export function alpnOf(
  { network }: ClientTransport,
  { alpn }: Extract<ClientSecurity, { kind: 'tls' }>,
): readonly string[] | undefined {
  if (alpn === undefined) return undefined;
  if (network === 'ws') return ['http/1.1'];
  return network === 'grpc' ? ['h2'] : alpn;
}

/** Whether requests of gRPC have to name another host than TLS does. Xray's own client alone can do that. */
export function hasOwnGrpcHost(
  { host }: Extract<ClientTransport, { network: 'grpc' }>,
  security: ClientSecurity,
): boolean {
  return host !== undefined && (security.kind === 'none' || host !== security.serverName);
}

/** Whether the server signs its REALITY handshake with ML-DSA-65, too, which only Xray checks. */
export function hasSecondSignature(security: ClientSecurity): boolean {
  return security.kind === 'reality' && security.mldsa65Verify !== undefined;
}
