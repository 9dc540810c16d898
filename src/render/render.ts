import type { NodeConfig } from '../contract/node-config.ts';
import { CoreError } from '../errors.ts';
import type { LinkRow, NodeRows, ProtocolRow } from './load.ts';
import { renderMtProto } from './mtproto.ts';
import { byText } from './order.ts';
import { renderXray } from './xray.ts';

/**
 * A node's configuration from its rows. Pure, and stable to the byte: the same rows in any order
 * give the same JSON.
 * @throws CoreError INTERNAL where stored settings cannot be rendered. The node keeps what it runs,
 * which is better than losing an inbound that its users are on.
 */
export function renderNodeConfig(rows: NodeRows): NodeConfig {
  const protocols = [...rows.protocols].sort((left, right) => left.id - right.id);
  for (const row of protocols) requireRendered(row);
  const served = new Set(protocols.map((row) => row.id));
  const links = rows.links
    .filter((link) => served.has(link.nodeProtocolId))
    .sort((left, right) => byText(left.uuid, right.uuid));
  const uuids = groupUuids(links);
  const uuidsOf = (nodeProtocolId: number): readonly string[] => uuids.get(nodeProtocolId) ?? [];
  try {
    const xray = renderXray({ ...rows, protocols }, uuidsOf);
    const mtproto = renderMtProto({ node: rows.node, protocols }, uuidsOf);
    return {
      revision: rows.node.revision,
      clientMap: renderClientMap(links),
      services: {
        ...(xray === undefined ? {} : { xray }),
        ...(mtproto === undefined ? {} : { mtproto }),
      },
    };
  } catch (cause) {
    throw new CoreError(
      'INTERNAL',
      `The configuration of node ${rows.node.id} cannot be rendered`,
      {
        cause,
      },
    );
  }
}

function requireRendered(row: ProtocolRow): void {
  if (row.protocol === 'VLESS' || row.protocol === 'TROJAN' || row.protocol === 'MTPROTO') return;
  throw new CoreError(
    'INTERNAL',
    `Node protocol ${row.id} is ${row.protocol}, which Core does not render yet`,
  );
}

/** UUIDs by node protocol, in the order of `links`. */
function groupUuids(links: readonly LinkRow[]): Map<number, string[]> {
  const groups = new Map<number, string[]>();
  for (const link of links) {
    const group = groups.get(link.nodeProtocolId);
    if (group === undefined) groups.set(link.nodeProtocolId, [link.uuid]);
    else group.push(link.uuid);
  }
  return groups;
}

function renderClientMap(links: readonly LinkRow[]): NodeConfig['clientMap'] {
  const clientMap: NodeConfig['clientMap'] = {};
  for (const link of links) {
    clientMap[link.uuid] = { userId: link.userId, subscriptionId: link.subscriptionId };
  }
  return clientMap;
}
