import type pg from 'pg';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';

type PortTransport = 'tcp' | 'udp';

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

/**
 * Checks that no other protocol of the node listens on this port with the same transport. The caller's
 * transaction must have locked the node.
 * @param wanted.nodeProtocolId The protocol itself, if it exists already.
 * @throws CoreError INVALID_ARGUMENT naming the protocol that has the port.
 */
export async function requirePortFreeOnNode(
  client: pg.PoolClient,
  wanted: {
    nodeId: number;
    nodeProtocolId?: number;
    protocol: VpnProtocol;
    port: number;
    settings: Record<string, unknown>;
  },
): Promise<void> {
  const { nodeId, nodeProtocolId, protocol, port, settings } = wanted;
  const transports = transportsOf(protocol, settings);
  const { rows } = await client.query<{ id: number; protocol: string; tcp: boolean }>(
    `SELECT id, protocol, listens_tcp AND $3 AS tcp FROM node_protocols
     WHERE node_id = $1 AND port = $2 AND (listens_tcp AND $3 OR listens_udp AND $4)
       AND id IS DISTINCT FROM $5::bigint ORDER BY id LIMIT 1`,
    [nodeId, port, transports.includes('tcp'), transports.includes('udp'), nodeProtocolId ?? null],
  );
  const other = rows[0];
  if (other === undefined) return;
  throw new CoreError(
    'INVALID_ARGUMENT',
    `${other.tcp ? 'TCP' : 'UDP'} port ${port} of node ${nodeId} is taken by protocol ${other.id} (${other.protocol})`,
  );
}
