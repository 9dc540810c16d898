import { connectionOf } from '../client-apps/connection.ts';
import { shareLink } from '../client-apps/share-link.ts';
import type { VpnProtocol } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { hostSql, publicAddress } from '../render/public-address.ts';
import type { Queryable } from '../stores/postgres.ts';

interface LinkedProtocol {
  nodeId: number;
  nodeName: string;
  host: string;
  ip: string;
  protocol: VpnProtocol;
  port: number;
  settings: { publicHost?: string; publicPort?: number };
}

/**
 * The share link of a link: the URI for a client app. It exists even while the subscription has no
 * access.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if neither the node nor the protocol has an address.
 */
export async function showShareLink(db: Queryable, uuid: string): Promise<string> {
  const { rows } = await db.query<LinkedProtocol>(
    `SELECT n.id AS "nodeId", n.name AS "nodeName", ${hostSql} AS host, n.ip, p.protocol, p.port, p.settings
     FROM subscription_links l
     JOIN node_protocols p ON p.id = l.node_protocol_id
     JOIN nodes n ON n.id = p.node_id
     WHERE l.uuid = $1`,
    [uuid],
  );
  const row = rows[0];
  if (row === undefined) throw new CoreError('NOT_FOUND', `There is no link ${uuid}`);
  const { host, port } = publicAddress(row, row.port, row.settings);
  if (host === '') {
    throw new CoreError(
      'INVALID_ARGUMENT',
      `Node ${row.nodeId} has no host or address yet, and its protocol no publicHost. Register the node, or give it a host: core node set ${row.nodeId} --host NAME`,
    );
  }
  const name = `${row.nodeName} ${row.protocol}`;
  return shareLink(
    connectionOf(row.protocol, row.settings, { credential: uuid, host, port, name }),
  );
}
