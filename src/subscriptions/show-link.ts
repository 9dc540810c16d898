import { type Connection, connectionsOf } from '../client-apps/connection.ts';
import { connectionName } from '../client-apps/connection-name.ts';
import { misreadings } from '../client-apps/misread-links.ts';
import { otherShareLinks, shareLink } from '../client-apps/share-link.ts';
import { CoreError } from '../errors.ts';
import { publicAddress } from '../render/public-address.ts';
import type { Queryable } from '../stores/postgres.ts';
import { type Link, type LinkReference, readLink } from './links.ts';

/**
 * The share links of a link: a URI for a client app for each public face of its protocol, and then the
 * same in other forms, and what apps misread in them. They exist even while the subscription has no access.
 * @throws CoreError NOT_FOUND; INVALID_ARGUMENT if neither the node nor the protocol has an address.
 */
export async function showShareLinks(
  db: Queryable,
  reference: LinkReference,
): Promise<{ uris: string[]; otherUris: string[]; warnings: string[] }> {
  const link = await readLink(db, reference);
  const connections = connectionsOfLink(link);
  if (connections.length > 0) {
    return {
      uris: connections.map(shareLink),
      otherUris: connections.flatMap(otherShareLinks),
      warnings: [...new Set(connections.flatMap(misreadings))],
    };
  }
  throw new CoreError(
    'INVALID_ARGUMENT',
    `Node ${link.nodeId} has no host or address yet, and its protocol no publicHost. Register the node, or give it a host: core node set ${link.nodeId} --host NAME`,
  );
}

/**
 * How client apps connect by a link, by each public face that has an address.
 * @throws CoreError INVALID_ARGUMENT for settings that Core would not have stored.
 */
export function connectionsOfLink(link: Link): Connection[] {
  const settings = link.settings as { publicHost?: string; publicPort?: number };
  const { host, port } = publicAddress(link, link.port, settings);
  const place = { credential: link.credential, host, port, name: connectionName(link) };
  return connectionsOf(link.protocol, settings, place).filter((one) => one.host !== '');
}
