import type { MtProtoInbound, MtProtoServiceConfig } from '../contract/node-config.ts';
import type { NodeRows, ProtocolRow } from './load.ts';
import { parseProtocolSettings } from './protocol-settings.ts';

/**
 * The MTProto service of a node. telemt does not start without a user, so an inbound without one is
 * left out, and with the last inbound the whole service.
 * @param uuidsOf UUIDs of a protocol's links, sorted.
 */
export function renderMtProto(
  rows: { node: NodeRows['node']; protocols: readonly ProtocolRow[] },
  uuidsOf: (nodeProtocolId: number) => readonly string[],
): MtProtoServiceConfig | undefined {
  const inbounds: MtProtoInbound[] = [];
  for (const row of rows.protocols) {
    if (row.protocol !== 'MTPROTO') continue;
    const uuids = uuidsOf(row.id);
    if (uuids.length > 0) inbounds.push(mtProtoInbound(rows.node, row, uuids));
  }
  return inbounds.length === 0 ? undefined : { inbounds };
}

function mtProtoInbound(
  node: NodeRows['node'],
  row: ProtocolRow,
  uuids: readonly string[],
): MtProtoInbound {
  const settings = parseProtocolSettings('MTPROTO', row.settings);
  return {
    tag: `in-${row.id}`,
    listen: '0.0.0.0',
    port: row.port,
    publicHost: settings.publicHost ?? (node.host === '' ? node.ip : node.host),
    publicPort: settings.publicPort ?? row.port,
    tlsDomain: settings.tlsDomain,
    modes: settings.modes,
    ...(settings.adTag === undefined ? {} : { adTag: settings.adTag }),
    users: uuids.map((uuid) => ({ name: uuid, secret: mtProtoSecret(uuid) })),
  };
}

/**
 * A user's MTProto secret: the 32 hex digits of the link's UUID. The UUID is random and is the
 * credential of the other protocols too, so there is one secret a link to keep and to revoke.
 */
export function mtProtoSecret(uuid: string): string {
  return uuid.replaceAll('-', '');
}
